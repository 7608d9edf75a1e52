"""A question as ids: in the chat's format for a tuned model, as plain text for one that never saw the markers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..chat_format import ChatFormat
from ..engine import Loaded

Format = Literal["chat", "text"]


@dataclass(frozen=True)
class Encoded:
    """A question and its options in the ids of one model."""

    prompt: list[int]
    options: list[list[int]]
    """Empty where the answer is free."""

    @property
    def length(self) -> int:
        """Tokens of the prompt with its longest option."""
        return len(self.prompt) + max(map(len, self.options), default=0)


def format_of(loaded: Loaded, chat: ChatFormat) -> Format:
    """How the model is to be asked: in chat if its generation ends at the end of a turn."""
    path = loaded.folder / "generation_config.json"
    ends = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    return "chat" if chat.end in (ends if isinstance(ends, list) else [ends]) else "text"


def encode(records: Sequence[dict], chat: ChatFormat, form: Format) -> list[Encoded]:
    """Ids of each question.

    Chat: the turn of the user and the marker of the assistant, then the option. Text: the question, a new line, the
    option. Options end with their last word, not with a marker, as in GPT-3 and FLAN.
    """
    if form == "chat":
        prompts = chat.prompts([record["messages"] for record in records])
    else:
        prompts = chat.encode([record["messages"][-1]["content"] + "\n" for record in records])
    flat = iter(chat.encode([option for record in records for option in record["options"] or ()]))
    return [
        Encoded(prompt, [next(flat) for _ in record["options"] or ()])
        for prompt, record in zip(prompts, records, strict=True)
    ]
