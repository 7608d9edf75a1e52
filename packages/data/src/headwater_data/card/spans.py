"""What in a text offends a rule: the characters to mark for someone who is to judge the rule.

Only what can be pointed at: a document that is too short has no span, and the page says its value and threshold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

Span = tuple[int, int]
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_PARAGRAPH = re.compile(r"\S(?:[^\n]|\n(?![^\S\n]*\n|\Z))*")
_WORD = re.compile(r"\S+")
_END = re.compile(r"""[.!?"'。？！…]\s*$""")
MOST = 400


def _matches(pattern: str) -> Callable[[str], Iterator[Span]]:
    compiled = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    return lambda text: (m.span() for m in compiled.finditer(text))


def _repeats(unit: re.Pattern) -> Callable[[str], Iterator[Span]]:
    def spans(text: str) -> Iterator[Span]:
        seen: set[str] = set()
        for m in unit.finditer(text):
            if (key := m.group().strip()) in seen:
                yield m.span()
            seen.add(key)

    return spans


def _lines(fits: Callable[[str], bool]) -> Callable[[str], Iterator[Span]]:
    return lambda text: (m.span() for m in _LINE.finditer(text) if fits(m.group()))


def _top_ngram(n: int) -> Callable[[str], Iterator[Span]]:
    def spans(text: str) -> Iterator[Span]:
        words = list(_WORD.finditer(text))
        grams = [tuple(m.group() for m in words[i : i + n]) for i in range(len(words) - n + 1)]
        if grams:
            top = Counter(grams).most_common(1)[0][0]
            yield from ((words[i].start(), words[i + n - 1].end()) for i, g in enumerate(grams) if g == top)

    return spans


def _repeated_ngrams(n: int) -> Callable[[str], Iterator[Span]]:
    def spans(text: str) -> Iterator[Span]:
        words, seen, i = list(_WORD.finditer(text)), set(), 0
        while i + n <= len(words):
            gram = tuple(m.group() for m in words[i : i + n])
            if gram in seen:
                yield words[i].start(), words[i + n - 1].end()
                i += n
            else:
                seen.add(gram)
                i += 1

    return spans


OFFENDING: dict[str, Callable[[str], Iterator[Span]]] = {
    "gopher_hashes": _matches("#"),
    "gopher_ellipses": _matches(r"\.\.\.|…"),
    "gopher_bullet_lines": _matches(r"^\s*[-*•‣◦]"),
    "gopher_ellipsis_lines": _matches(r"(\.\.\.|…)\s*$"),
    "gopher_alpha_words": _matches(r"(?<!\S)[\W\d_]+(?!\S)"),
    "gopher_duplicate_lines": _repeats(_LINE),
    "gopher_duplicate_line_chars": _repeats(_LINE),
    "fineweb_duplicate_line_chars": _repeats(_LINE),
    "gopher_duplicate_paragraphs": _repeats(_PARAGRAPH),
    "gopher_duplicate_paragraph_chars": _repeats(_PARAGRAPH),
    **{f"gopher_top_{n}_gram": _top_ngram(n) for n in (2, 3, 4)},
    **{f"gopher_duplicate_{n}_gram": _repeated_ngrams(n) for n in range(5, 11)},
    "c4_lorem_ipsum": _matches("lorem ipsum"),
    "c4_curly_brackets": _matches(r"[{}]"),
    "fineweb_terminal_lines": _lines(lambda line: not _END.search(line)),
    "fineweb_short_lines": _lines(lambda line: len(line) <= 30),
    "fineweb_newlines_per_word": _matches(r"\n"),
    "refinedweb_lines": _lines(
        lambda line: len(line.split()) < 2 or line.isupper() or not re.search("[^\\W\\d_]", line)
    ),
}
"""Rule -> where it is broken."""


def offending(rule: str, text: str) -> list[Span]:
    """Characters of `text` that break the rule, ascending and apart; at most the first few hundred."""
    if rule.startswith(("item_span", "repeated_")):
        return [(0, len(text))]
    find = OFFENDING.get(rule)
    merged: list[Span] = []
    for start, end in sorted(find(text)) if find else ():
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif len(merged) < MOST and end > start:
            merged.append((start, end))
    return merged
