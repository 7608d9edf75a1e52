"""Entries that a model would hardly learn: those that no text gives, and those that the training text hardly gives.

After Land and Bartolo 2024, Fishing for Magikarp, arXiv 2405.05417. Without a model's weights the count in training
text stands for under-training, which they find to go with it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headwater_tokenizer.compare.subject import Subject
from headwater_tokenizer.encoder import buffers

SHOWN = 20
BEFORE = 8
"""Characters after which an entry is tried that is not reached alone: `##ing` of WordPiece, or anything without a blank
where the tokenizer puts one first."""
AFTER = " a"
"""And what it is tried before: an abbreviation that keeps its dot within a sentence only."""


def audit(subject: Subject, occurrences: np.ndarray, below: int) -> dict:
    """The entries that are no special tokens, looked through.

    Args:
        occurrences: (vocab_size,) how often each id occurred in the training sample.
        below: an entry that occurred less often is under-trained.

    Returns:
        unreachable: entries that are whole characters, but whose text gives other tokens, alone and beside others;
        partial_utf8: entries that are not, which can't be tried; under_trained: entries that occur less than `below`
        times; never_in_sample: those of them that never do; examples, the longest first.
    """
    unreachable, partial = _unreachable(subject)
    counts = occurrences[subject.learned]
    rare = subject.learned[counts < below].tolist()
    return {
        "unreachable": len(unreachable),
        "unreachable_examples": _shown(subject, unreachable),
        "partial_utf8": partial,
        "under_trained": len(rare),
        "under_trained_examples": _shown(subject, rare),
        "never_in_sample": int((counts == 0).sum()),
    }


def _unreachable(subject: Subject) -> tuple[list[int], int]:
    """Ids of the entries that no text gives, and how many entries are no whole characters."""
    texts: dict[int, str] = {}
    for i in subject.learned.tolist():
        try:
            texts[i] = subject.pieces[i].decode()
        except UnicodeDecodeError:
            continue
    partial = len(subject.learned) - len(texts)
    left = list(texts)
    alone = sorted({text for text in texts.values() if len(text) == 1 and text.isalnum()})
    befores = alone[:: max(len(alone) // BEFORE, 1)][:BEFORE]
    for before, after in [("", ""), ("", AFTER), *((character, "") for character in befores)]:
        given = _gives(subject, before, [texts[i] for i in left], after, np.array(left, np.int64))
        left = [i for i, gives in zip(left, given.tolist(), strict=True) if not gives]
    return left, partial


def _gives(subject: Subject, before: str, texts: list[str], after: str, ids: np.ndarray) -> np.ndarray:
    """Whether each text, between two others, is the token of that id: (texts,) bool."""
    column = pa.array([before + text + after for text in texts], pa.large_string())
    spans = subject.spans(column)
    _, offsets = buffers(column)
    of_text = np.repeat(np.arange(len(texts)), spans.counts)
    begins = offsets[:-1] + len(before.encode())
    found = (spans.ids == ids[of_text]) & (spans.starts == begins[of_text])
    return np.bincount(of_text[found], minlength=len(texts)) > 0


def _shown(subject: Subject, ids: list[int]) -> list[str]:
    longest = sorted(ids, key=lambda i: (-len(subject.pieces[i]), i))[:SHOWN]
    return [subject.name_of(i) for i in longest]
