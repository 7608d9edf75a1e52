"""Letters with their script, numbers and white space as Oniguruma (in tokenizers) has them: one table over all code
points.

The table lies in classes.npz, since asking for it takes seconds; `python -m headwater_tokenizer.classes` makes it again
from the installed tokenizers, and tests/test_pieces.py holds the two against each other.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from headwater_tokenizer.splits import SCRIPTS

LETTER, NUMBER, SPACE, NEWLINE = 1, 2, 4, 8
SCRIPT = 0xF0
"""Of a letter: the place of its script in splits.SCRIPTS, from 1, in the upper four bits; 0 for all others."""
POINTS = 0x110000
FILE = Path(__file__).parent / "classes.npz"


@cache
def class_table() -> np.ndarray:
    """(0x110000,) uint8: the classes of each code point, or 0."""
    with np.load(FILE, allow_pickle=False) as file:
        table = np.zeros(POINTS, np.uint8)
        for start, stop, kind in zip(file["start"].tolist(), file["stop"].tolist(), file["kind"].tolist(), strict=True):
            table[start:stop] = kind
    return table


def of_tokenizers() -> np.ndarray:
    """The table as the installed tokenizers gives it."""
    points = np.array([p for p in range(POINTS) if not 0xD800 <= p < 0xE000])
    text = "".join(map(chr, points.tolist()))
    table = np.zeros(POINTS, np.uint8)
    for pattern, kind in ((r"\p{L}+", LETTER), (r"\p{N}+", NUMBER), (r"\s+", SPACE)):
        table[points[_matched(text, pattern)]] |= kind
    letters = np.flatnonzero(table & LETTER)  # one code point in eight
    text = "".join(map(chr, letters.tolist()))
    for place, script in enumerate(SCRIPTS, start=1):
        table[letters[_matched(text, rf"[\p{{L}}&&[{script}]]+")]] |= place << 4
    table[[10, 13]] |= NEWLINE
    return table


def _matched(text: str, pattern: str) -> np.ndarray:
    """Which characters of a text a pattern matches, (characters,) bool."""
    from tokenizers import Regex, pre_tokenizers

    # what matches is removed: the rest says where it stood
    rest = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
    matched = np.ones(len(text), bool)
    for _, (start, stop) in rest:
        matched[start:stop] = False
    return matched


if __name__ == "__main__":
    found = of_tokenizers()
    edges = np.flatnonzero(np.diff(found)) + 1
    starts, stops = np.r_[0, edges], np.r_[edges, POINTS]
    some = found[starts] > 0
    np.savez_compressed(
        FILE, start=starts[some].astype(np.int32), stop=stops[some].astype(np.int32), kind=found[starts[some]]
    )
