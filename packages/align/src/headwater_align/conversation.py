"""A conversation as data: messages with roles, and what makes one well-formed.

One message is `{"role": "system" | "user" | "assistant", "content": str}`, as in OpenAI's chat format, TRL and
transformers. A conversation to learn from opens with an optional system message, alternates user and assistant,
and ends with the assistant.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

ROLES = ("system", "user", "assistant")

Message = dict[str, str]

Turns = Literal["first", "last", "every"]
"""Which of a conversation's answers a model is asked for."""


class BadRow(ValueError):
    """A record that cannot be used; the message is the reason, in words free of the record's text."""


def check(messages: Any, last: str = "assistant") -> list[Message]:
    """Return the messages with outer white space removed, or say why they are no conversation.

    Args:
        messages: list of {"role", "content"} mappings; other keys are dropped.
        last: role that the last message must have.

    Raises:
        BadRow: not a list, an unknown role, a content that is no text or empty, turns out of order.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRow("no messages")
    clean = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadRow("unknown role")
        content = message.get("content")
        if not isinstance(content, str):
            raise BadRow("content is not text")
        if not is_unicode(content):
            raise BadRow("text with half a surrogate pair")
        if not content.strip():
            raise BadRow(f"empty {message['role']} message")
        clean.append({"role": message["role"], "content": content.strip()})
    turns = clean[1:] if clean[0]["role"] == "system" else clean
    for i, message in enumerate(turns):
        if message["role"] != ("user", "assistant")[i % 2]:
            raise BadRow("turns do not alternate between user and assistant")
    if not turns or turns[-1]["role"] != last:
        raise BadRow(f"does not end with the {last}")
    return clean


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8. JSON may hold halves of surrogate pairs, which no file can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def identity(*parts: Any) -> str:
    """16 hex digits that name a record by its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def prompts(messages: list[Message], turns: Turns) -> list[list[Message]]:
    """What the assistant is asked: all that comes before its first answer, before its last, or before each.

    Args:
        messages: a whole conversation, or one whose last question waits for its answer, as a comparison's prompt does.
    """
    ends = [place for place, message in enumerate(messages, 1) if message["role"] == "user"]
    chosen = {"first": ends[:1], "last": ends[-1:], "every": ends}[turns]
    return [messages[:end] for end in chosen]


def asked(records: Iterable[dict], turns: Turns) -> list[tuple[dict, list[Message]]]:
    """The prompts of records, each once, word for word, with the first record that asks it; in order of the records.

    Args:
        records: of an instructions artefact, or of a preferences artefact, whose `prompt` is then the conversation.
    """
    found: dict[str, tuple[dict, list[Message]]] = {}
    for record in records:
        for messages in prompts(record.get("messages") or record["prompt"], turns):
            found.setdefault(identity(messages), (record, messages))
    return list(found.values())


def transcript(messages: list[Message]) -> str:
    """A conversation as one text for people, each turn under its role where there are several."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].upper()}: {message['content']}" for message in messages)


def prompt_key(messages: list[Message]) -> str:
    """What two records share when they ask the same: every word of the first user message, case and spacing aside."""
    first = next(m["content"] for m in messages if m["role"] == "user")
    return " ".join(unicodedata.normalize("NFKC", first).casefold().split())


def is_heldout(key: str, fraction: float) -> bool:
    """Whether the records of this key are held out.

    It depends on the key alone, so that records that share a prompt stay on one side, also across stages, and what a
    small fraction holds out a larger one holds out too.
    """
    digest = hashlib.sha256(b"heldout\0" + key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
