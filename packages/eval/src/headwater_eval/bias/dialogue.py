"""Dialogues as ParlAI writes them, and as a language model reads them.

A file has one turn a line, fields `name:value` between tabs, line breaks in a value as `\\n`; `text` holds all turns so
far where the task is flattened, `labels` the answer, `episode_done:True` ends a dialogue (ParlAI's documentation of
ParlAIDialogTeacher). A model without a chat format reads turns of "Person 1" and "Person 2" (OPT, arXiv:2205.01068,
section 3.2).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .reading import Numbered

ARTICLES = re.compile(r"\b(a|an|the)\b")


def dialogues(path: Path) -> Iterator[Numbered]:
    """Line number and {"turns": list of strings, "answer": string} of each line of the file."""
    before: list[str] = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        fields = dict(part.partition(":")[::2] for part in line.split("\t"))
        turns = [turn.strip() for turn in fields.get("text", "").replace("\\n", "\n").split("\n") if turn.strip()]
        answers = fields.get("labels", fields.get("eval_labels", "")).replace("\\n", "\n").split("|")
        answer = " ".join(answers[0].split())
        yield number, {"turns": [*before, *turns], "answer": answer}
        before = [] if fields.get("episode_done", "").strip() == "True" else [*before, *turns, *filter(None, [answer])]


def prompt(turns: list[str]) -> str:
    """Turns of two people and the name of the one whose turn it is."""
    lines = [f"Person {i % 2 + 1}: {turn}" for i, turn in enumerate(turns)]
    return "\n".join([*lines, f"Person {len(turns) % 2 + 1}:"])


def unigram_f1(said: str, expected: str) -> float:
    """ParlAI's F1: of words without case, punctuation and articles, each counted as often as it stands there."""
    a, b = _words(said), _words(expected)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else 0.0


def _words(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return ARTICLES.sub(" ", kept).split()
