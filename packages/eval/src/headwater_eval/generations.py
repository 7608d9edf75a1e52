"""Greedy completions of fixed prompts, the same for every model of a lineage, for people to read."""

from __future__ import annotations

import re
from collections import Counter
from typing import Protocol

from .config import SamplesConfig
from .documents import Document, seeded_rank
from .lm import Scorer


class ChatScorer(Scorer, Protocol):
    """A Scorer whose tokenizer knows the chat format."""

    end_of_turn: int
    """Id of <|end|>."""

    def encode_chat(self, question: str) -> list[int]:
        """Ids of `<|user|>question<|end|><|assistant|>`."""


def generate(scorer: ChatScorer, documents: list[Document], config: SamplesConfig) -> list[dict]:
    """Complete the beginnings of `documents` (from `prompt_documents`) and answer the questions.

    One row a prompt: {id, format, source, prompt, completion, reference, tokens, finished}.

    `plain` prompts begin held-out documents, so that the true continuation stands beside the model's; `chat`
    prompts are questions in the chat format, for an untuned model too. `finished`: the model ended by itself.
    """
    rows: list[dict] = []
    prompts: list[list[int]] = []
    for document in documents:
        parts = cut_prompt(document.text, config.prompt_characters)
        assert parts is not None, f"document {document.id} is too short for a prompt"
        prompt, reference = parts
        rows.append({"id": document.id, "format": "plain", "source": document.source, "prompt": prompt,
                     "reference": reference})  # fmt: skip
        prompts.append([scorer.end_of_document, *scorer.encode(prompt)])
    for i, question in enumerate(config.questions):
        rows.append({"id": f"question-{i}", "format": "chat", "source": "questions", "prompt": question,
                     "reference": None})  # fmt: skip
        prompts.append(scorer.encode_chat(question))
    room = min(config.max_new_tokens, scorer.context // 2)
    prompts = [prompt[-(scorer.context - room) :] for prompt in prompts]
    stop = [scorer.end_of_document, scorer.end_of_turn]
    for row, ids in zip(rows, scorer.generate(prompts, room, stop) if prompts else [], strict=True):
        row.update(completion=scorer.decode(ids), tokens=len(ids), finished=len(ids) < room)
    return rows


def prompt_documents(documents: list[Document], config: SamplesConfig, seed: int) -> list[Document]:
    """Documents long enough for a prompt, in a seeded order that goes round the sources."""
    usable = [
        d
        for d in sorted(documents, key=lambda d: seeded_rank(seed, d.id))
        if (config.language is None or d.lang in (config.language, None, ""))
        and cut_prompt(d.text, config.prompt_characters)
    ]
    seen: Counter[str] = Counter()
    rounds: list[tuple[int, int, Document]] = []
    for document in usable:
        rounds.append((seen[document.source], len(rounds), document))
        seen[document.source] += 1
    return [document for _, _, document in sorted(rounds)[: config.prompts]]


def cut_prompt(text: str, characters: int) -> tuple[str, str] | None:
    """The first `characters` of a text, back to the last white space, and about as much of what follows.

    None where the text is shorter than twice that or its beginning holds no white space.
    """
    if len(text) < 2 * characters:
        return None
    spaces = [m.start() for m in re.finditer(r"\s", text[: characters + 1])]
    if not spaces or not text[: spaces[-1]].strip():
        return None
    return text[: spaces[-1]], text[spaces[-1] : 2 * characters]
