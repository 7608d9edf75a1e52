"""Docstrings: {"name", "signature", "doc"} of a Python function; question and answer by the phrasings below."""

from __future__ import annotations

import inspect
import re
from typing import Any

from ..conversation import BadRow, Message, check
from .format import Format, Row

# Real questions that a docstring answers. (question, which part of the docstring answers it)
PHRASINGS = (
    ("What does {name} do?", "sentence"),
    ("Explain {name} in Python.", "paragraph"),
    ("Describe {name} in one sentence.", "sentence"),
    ("How do I call {name}?", "signature"),
    ("Tell me about {name}.", "paragraph"),
    ("What is {name} for?", "sentence"),
)


def conversations(record: dict, phrasings: int) -> list[list[Message]]:
    """Question and answer made from one docstring, in `phrasings` ways that its name picks.

    Raises:
        BadRow: no name or no docstring, or none of the phrasings fits.
    """
    name, doc = record["name"], record["doc"]
    if not isinstance(name, str) or not isinstance(doc, str) or not name.strip() or not doc.strip():
        raise BadRow("no name or no docstring")
    doc = inspect.cleandoc(doc)
    paragraph = " ".join(doc.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph)[0]
    answers = {
        "paragraph": paragraph,
        "sentence": sentence,
        "signature": _call(name, record.get("signature"), sentence),
    }
    start = sum(name.encode()) % len(PHRASINGS)
    made: list[list[Message]] = []
    for question, part in PHRASINGS[start:] + PHRASINGS[:start]:
        if len(made) < phrasings and answers[part]:
            asked = {"role": "user", "content": question.format(name=name)}
            made.append(check([asked, {"role": "assistant", "content": answers[part]}]))
    return made


def _call(name: str, signature: Any, sentence: str) -> str:
    """How a function is called, and to what end; empty where the signature is not known."""
    if not isinstance(signature, str) or not signature.startswith("("):
        return ""
    return f"{name.rpartition('.')[2]}{signature}: {sentence}"


def read(row: Row, phrasings: int = 1) -> list[dict | BadRow]:
    return [{"messages": messages} for messages in conversations(row, phrasings)]


FORMAT = Format("docstrings", "demonstrations", lambda row: {"name", "doc"} <= set(row), read)
