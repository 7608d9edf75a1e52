"""What a tokenizer does with numbers and with the beginnings of lines of code."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from headwater_tokenizer.compare.subject import Spans, Subject

LENGTHS = range(1, 10)
MOST = 1000
"""Numbers of each length: all of up to three digits."""
INDENTATIONS = (4, 8, 12, 16)
CODE = "return x"


def digits(subject: Subject) -> dict:
    """How numbers of one to nine digits are cut, each written after a blank, whose own token does not count.

    Returns:
        tokens_per_number: length -> mean tokens; cuts: length, from 2 on -> different ways in which numbers of that
        length are cut, 1 being consistent; aligned_from_right: whether all digits stand in groups of one size counted
        from the right, as thousands do, so that a digit's place in its token gives its place value (Singh and Strouse
        2024, Tokenization counts, arXiv 2402.14903).
    """
    tokens, cuts, aligned = {}, {}, True
    sizes: set[int] = set()
    for length in LENGTHS:
        shapes = [shape for shape in _shapes(subject, numbers(length))]
        tokens[str(length)] = float(np.mean([len(shape) for shape in shapes]))
        if length > 1:
            cuts[str(length)] = len(set(shapes))
        for shape in set(shapes):
            sizes.update(shape[1:])
            aligned &= sum(shape) == length
            aligned &= len(sizes) < 2 and (not sizes or shape[0] <= max(sizes))
    return {"tokens_per_number": tokens, "cuts": cuts, "aligned_from_right": bool(aligned and sizes)}


def numbers(length: int) -> list[int]:
    """All numbers of so many digits, or `MOST` of them, spread evenly (multiples of the golden ratio, modulo 1)."""
    low, high = 10 ** (length - 1), 10**length
    if high - low <= MOST:
        return list(range(low, high))
    golden = 0x9E3779B97F4A7C15  # 2^64 / 1.618..., odd
    return [low + ((k * golden % 2**64) * (high - low) >> 64) for k in range(1, MOST + 1)]


def _shapes(subject: Subject, values: list[int]) -> list[tuple[int, ...]]:
    """Of each number, how many of its digits each token has."""
    spans = subject.encode([f" {value}" for value in values])
    found, token, start = [], 0, 0
    for value, count in zip(values, spans.counts.tolist(), strict=True):
        first, start = start + 1, start + 1 + len(str(value))
        parts = [min(stop, start) - max(begin, first) for begin, stop in _pairs(spans, token, count)]
        found.append(tuple(size for size in parts if size > 0))
        token += count
    return found


def indentation(subject: Subject) -> dict[str, int]:
    """Blanks before a line of code -> tokens that they take for themselves; one that joins the word is the word's."""
    spans = subject.encode([" " * blanks + CODE for blanks in INDENTATIONS])
    starts = accumulate((blanks + len(CODE) for blanks in INDENTATIONS), initial=0)
    tokens = accumulate(spans.counts.tolist(), initial=0)
    return {
        str(blanks): sum(begin < stop <= start + blanks for begin, stop in _pairs(spans, token, count))
        for blanks, start, token, count in zip(INDENTATIONS, starts, tokens, spans.counts.tolist(), strict=False)
    }


def white_space_share(subject: Subject, occurrences: np.ndarray) -> float:
    """Share of tokens that are nothing but white space.

    Args:
        occurrences: (vocab_size,) how often each id occurred.
    """
    blank = [i for i in subject.learned.tolist() if subject.pieces[i].decode(errors="replace").isspace()]
    return float(occurrences[blank].sum() / max(int(occurrences.sum()), 1))


def _pairs(spans: Spans, token: int, count: int) -> list[tuple[int, int]]:
    part = slice(token, token + count)
    return list(zip(spans.starts[part].tolist(), spans.ends[part].tolist(), strict=True))
