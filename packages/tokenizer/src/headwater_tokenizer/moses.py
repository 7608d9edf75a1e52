"""The Moses tokenizer's rules (Koehn et al. 2007; tokenizer.perl, as sacremoses ports it) as one regular expression.

A match is a token; what lies between matches is white space. As the rules have it:

- marks stand alone, but for full stop, comma, apostrophe, backtick and hyphen; a run of dots is one token
- a comma stays in a number (5,300), nowhere else
- English: `it's` is `it` and `'s`; French and Italian: `l'eau` is `l'` and `eau`; else an apostrophe stands alone
- a word's last full stop is cut off unless the word is an abbreviation (sacremoses's lists), holds a full stop already
  (`e.g.`), or the next word begins in lower case

tests/test_moses.py holds it against sacremoses on real text.
"""

from __future__ import annotations

import re

from sacremoses import MosesTokenizer

_WORD = r"\p{Alphabetic}\p{M}\p{N}"
_LOWER = r"\p{Ll}"


def moses_pattern(language: str) -> str:
    """The expression of a language, for Oniguruma; languages that sacremoses has no list for have English's."""
    rules = MosesTokenizer(lang=language)
    numeric = set(rules.NUMERIC_ONLY_PREFIXES)
    always = {prefix for prefix in rules.NONBREAKING_PREFIXES if prefix not in numeric}
    begins, inside, elided = _apostrophes(language)
    comma = r"(?<=\p{N}),(?=\p{N})"
    dot = rf"(?<!\.)\.(?=[{_WORD}`\-])"  # within a word
    part = rf"(?:[{_WORD}`\-]|{comma}|{inside})"
    word = rf"{begins}(?:{part}|{dot})+"
    whole = rf"(?<![{_WORD}.`\-])"  # where a chunk begins
    stop = rf"\.(?![.{_WORD}`\-])"  # the last of a chunk
    return "|".join(
        [
            r"\.{2,}",
            *elided,
            rf"{whole}(?:{_any_of(always)}){stop}",
            rf"{whole}(?:{_any_of(numeric)}){stop}(?=\s+[0-9])",
            rf"(?=[^\s.]*\p{{Alphabetic}}|[^\s.]*\.[^\s.]*\p{{Alphabetic}}){begins}{part}*{dot}(?:{part}|{dot})*{stop}",
            rf"{word}{stop}(?=\s+{_LOWER})",
            word,
            r"\S",
        ]
    )


def _apostrophes(language: str) -> tuple[str, str, list[str]]:
    """How a word may begin, what may stand inside one, and words that end in an apostrophe."""
    letter, never = r"[\p{Alphabetic}\p{M}]", r"[^\s\S]"
    if language == "en":
        return rf"(?:(?<={letter})'(?={letter})|(?<=\p{{N}})'(?=s))?", rf"(?<=\p{{N}})'(?=(?!s){letter})", []
    if language in ("fr", "it"):
        return "", never, [rf"[{_WORD}`\-]*{letter}'(?={letter})"]
    return "", never, []


def _any_of(prefixes: set[str]) -> str:
    return "|".join(re.escape(prefix) for prefix in sorted(prefixes, key=lambda p: (-len(p), p))) or r"(?!)"
