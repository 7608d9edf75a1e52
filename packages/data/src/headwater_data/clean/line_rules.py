"""Rules on single lines: C4's, RefinedWeb's, and lines that a site repeats. Text in; text and lines dropped out.

C4: Raffel et al. 2020, arXiv 1910.10683, section 2.2. RefinedWeb: Penedo et al. 2023, arXiv 2306.01116, appendix G.2;
the paper gives no code, the substrings are those of DCLM's reconstruction.
"""

from __future__ import annotations

import re
from collections.abc import Container

import xxhash

from .normalise import Edited

POLICY_PHRASES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_C4_ENDS = (".", "?", "!", '"', "'")
_COUNTER = re.compile(r"^\W*\d(?:[,.]|\d)*(?:[KkMmBb])?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|"
                      r"upvotes|downvotes|downloads|views|followers)\W*$", re.I)  # fmt: skip
_SHORT_PHRASES = re.compile(r"\d+ items? in cart|items in cart|read more\.\.\.|^sign-in|^sign in", re.I)


def c4_lines(text: str, terminal: bool = False) -> Edited:
    """Keep the lines that C4 keeps; empty lines between paragraphs stay.

    Args:
        terminal: drop lines that do not end in . ? ! or a quotation mark, too (FineWeb leaves this rule out).
    """
    dropped = 0
    kept = []
    for line in text.split("\n"):
        words = line.split()
        if not words:
            kept.append(line)
            continue
        clean = _CITATION.sub("", line)
        low = clean.lower()
        if (
            len(words) < 3
            or max(map(len, words)) > 1000
            or "javascript" in low
            or any(phrase in low for phrase in POLICY_PHRASES)
            or (terminal and (not clean.rstrip().endswith(_C4_ENDS) or clean.rstrip().endswith("...")))
        ):
            dropped += 1
            continue
        dropped += clean != line
        kept.append(clean)
    return _join(kept), dropped


def refinedweb_lines(text: str) -> tuple[str, int, float]:
    """Drop lines mainly in upper case, of numbers alone, counters (3 likes), of one word, and navigation phrases.

    Returns:
        Text, lines dropped, and the share of words that went with them (RefinedWeb drops the page above 0.05).
    """
    dropped = words = gone = 0
    kept = []
    for line in text.split("\n"):
        parts = line.split()
        words += len(parts)
        if parts and _is_noise(line, parts):
            dropped += 1
            gone += len(parts)
            continue
        kept.append(line)
    return _join(kept), dropped, gone / max(words, 1)


def _is_noise(line: str, parts: list[str]) -> bool:
    if len(parts) < 2 or _COUNTER.match(line) or all(c.isdecimal() or not c.isalnum() for c in "".join(parts)):
        return True
    if len(parts) <= 10 and _SHORT_PHRASES.search(line):
        return True
    letters = [c for c in line if not c.isspace()]
    return sum(map(str.isupper, letters)) > 0.5 * len(letters)


def line_keys(text: str) -> set[int]:
    """64-bit hashes of a text's distinct lines, outer blanks apart."""
    return {xxhash.xxh3_64_intdigest(line.strip()) for line in text.split("\n") if line.strip()}


def site_lines(text: str, repeated: Container[int]) -> Edited:
    """Drop the lines whose `line_keys` are among a site's repeated ones."""
    lines = text.split("\n")
    kept = [line for line in lines if not line.strip() or xxhash.xxh3_64_intdigest(line.strip()) not in repeated]
    return (_join(kept), len(lines) - len(kept)) if len(kept) < len(lines) else (text, 0)


def _join(lines: list[str]) -> str:
    """Lines as a text with one empty line at most where some went."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
