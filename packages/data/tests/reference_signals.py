"""The signals of one text in plain Python, as their definitions read: what the compiled loops must equal."""

from __future__ import annotations

import re

import numpy as np
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)
SHORT_LINE = 30  # characters (FineWeb)
POLICY_PHRASES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

_PUNCTUATION = "".join(sorted(PUNCTUATION_SET))
_TERMINAL = tuple(sorted(TERMINAL_PUNCTUATION))
_C4_ENDS = (".", "?", "!", '"', "'")
_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


def measure(text: str) -> dict[str, float]:
    """All signals of a text; shares are of 1, counts are counts, lengths are characters."""
    words = text.split()
    signals = {"characters": float(len(text))}
    signals.update(_gopher_quality(text, words))
    signals.update(_gopher_lines(text))
    signals.update(_gopher_ngrams(words, max(len(text), 1)))
    signals.update(_c4(text, words))
    signals.update(_fineweb(text, words))
    signals.update(_characters(text))
    return signals


def _gopher_quality(text: str, words: list[str]) -> dict[str, float]:
    count = max(len(words), 1)
    worded = [w for w in words if w.isalnum() or w.strip(_PUNCTUATION)]
    lines = text.splitlines()
    line_count = max(len(lines), 1)
    return {
        "gopher_words": float(len(worded)),
        "gopher_word_length": sum(map(len, worded)) / max(len(worded), 1),
        "gopher_hashes": text.count("#") / count,
        "gopher_ellipses": (text.count("...") + text.count("…")) / count,
        "gopher_bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines) / line_count,
        "gopher_ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / line_count,
        "gopher_alpha_words": sum(any(c.isalpha() for c in w) for w in words) / count,
        "gopher_stop_words": float(len(STOP_WORDS.intersection(words))),
    }


def _gopher_lines(text: str) -> dict[str, float]:
    size = max(len(text), 1)
    paragraphs = _PARAGRAPHS.split(text.strip())
    lines = _LINES.split(text)
    repeated_paragraphs, paragraph_chars = repeats(paragraphs)
    repeated_lines, line_chars = repeats(lines)
    return {
        "gopher_duplicate_paragraphs": repeated_paragraphs / len(paragraphs),
        "gopher_duplicate_paragraph_chars": paragraph_chars / size,
        "gopher_duplicate_lines": repeated_lines / len(lines),
        "gopher_duplicate_line_chars": line_chars / size,
    }


def repeats(elements: list[str]) -> tuple[int, int]:
    """How many elements repeat an earlier one, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for element in elements:
        if element in seen:
            count += 1
            characters += len(element)
        else:
            seen.add(element)
    return count, characters


def _gopher_ngrams(words: list[str], size: int) -> dict[str, float]:
    """Shares of characters in the most frequent 2- to 4-gram and in repeated 5- to 10-grams.

    Words become integers and n-grams one sum a position, so that equal n-grams meet in a sort instead of in a
    dictionary of strings; where no n-gram repeats, no longer one does.
    """
    ids: dict[str, int] = {}
    stream = np.fromiter((ids.setdefault(w, len(ids)) for w in words), np.uint64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    before = np.concatenate(([0], np.cumsum(lengths)))  # characters before word i
    signals: dict[str, float] = {}
    grams, repeating = stream, True
    for n in range(2, DUPLICATE_NGRAMS[-1] + 1):
        positions = len(words) - n + 1
        if positions < 1 or not repeating:
            if n in TOP_NGRAMS and positions >= 1:  # all differ: the first one counts once
                signals[f"gopher_top_{n}_gram"] = float(before[n] + n - 1) / size
            continue
        # (n-gram, next word) -> n+1-gram: a pair of ranks below 2^32 is one exact 64-bit number, no hash
        pairs = (grams[:positions] << np.uint64(32)) | stream[n - 1 :]
        _, first, inverse, counts = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
        grams = inverse.astype(np.uint64)
        repeating = bool((counts > 1).any())
        if n in TOP_NGRAMS:
            at = int(first[counts == counts.max()].min())
            signals[f"gopher_top_{n}_gram"] = float(before[at + n] - before[at] + n - 1) * int(counts.max()) / size
        elif repeating:
            candidates = np.flatnonzero(counts[inverse] > 1)
            signals[f"gopher_duplicate_{n}_gram"] = _greedy_duplicates(candidates, inverse, before, n) / size
    names = [f"gopher_top_{n}_gram" for n in TOP_NGRAMS] + [f"gopher_duplicate_{n}_gram" for n in DUPLICATE_NGRAMS]
    return {name: signals.get(name, 0.0) for name in names}


def _greedy_duplicates(candidates: np.ndarray, grams: np.ndarray, before: np.ndarray, n: int) -> int:
    """Characters of repeated n-grams, scanned from the left, each repetition skipped as a whole.

    Args:
        candidates: (k,) ascending positions whose n-gram occurs more than once.
        grams: (positions,) rank of the n-gram at each position.
        before: (words + 1,) characters before each word.
    """
    seen: set[int] = set()
    characters = free = 0
    for position, gram in zip(candidates.tolist(), grams[candidates].tolist(), strict=True):
        if position < free:
            continue
        if gram in seen:
            characters += int(before[position + n] - before[position])
            free = position + n
        else:
            seen.add(gram)
    return characters


def _c4(text: str, words: list[str]) -> dict[str, float]:
    names = ("sentences", "curly_brackets", "lorem_ipsum")
    counts = dict.fromkeys([*names, *(f"terminal_{n}" for n in names), "javascript_lines", "policy_lines"], 0)
    for raw in text.splitlines():
        line = raw.strip()
        parts = line.split()
        line = _CITATION.sub("", line)
        if len(parts) < 3 or max(map(len, parts)) > 1000:
            continue
        lower = line.lower()
        ending = ("", "terminal_") if line.endswith(_C4_ENDS) and not line.endswith("...") else ("",)
        for prefix in ending:
            counts[f"{prefix}lorem_ipsum"] += "lorem ipsum" in lower
        if "javascript" in lower:
            counts["javascript_lines"] += 1
            continue
        for prefix in ending:
            counts[f"{prefix}curly_brackets"] += "{" in line
        if any(phrase in lower for phrase in POLICY_PHRASES):
            counts["policy_lines"] += 1
            continue
        for prefix in ending:
            counts[f"{prefix}sentences"] += count_sentences(line)
    longest = max(map(len, words), default=0)
    return {f"c4_{name}": float(n) for name, n in {**counts, "longest_word": longest}.items()}


def count_sentences(line: str) -> int:
    """Sentences of a line: ends of sentences, and what is left after the last one."""
    ends = list(_SENTENCE_END.finditer(line))
    return len(ends) + (1 if not ends or line[ends[-1].end() :].strip() else 0)


def _fineweb(text: str, words: list[str]) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    count = max(len(lines), 1)
    return {
        "fineweb_terminal_lines": sum(line.endswith(_TERMINAL) for line in lines) / count,
        "fineweb_short_lines": sum(len(line) <= SHORT_LINE for line in lines) / count,
        "fineweb_duplicate_line_chars": repeats(lines)[1] / max(len(text) - text.count("\n"), 1),
        "fineweb_newlines_per_word": text.count("\n") / max(len(words), 1),
    }


def _characters(text: str) -> dict[str, float]:
    size = max(len(text), 1)
    lines = text.splitlines()
    return {
        "upper_letters": sum(c.isalnum() and c.isupper() for c in text) / max(sum(c.isalpha() for c in text), 1),
        "digits": sum(c.isdecimal() for c in text) / size,
        "symbols": sum(not c.isalnum() and not c.isspace() for c in text) / size,
        "code_lines": sum(line.rstrip().endswith((";", "{", "}")) for line in lines) / max(len(lines), 1),
    }
