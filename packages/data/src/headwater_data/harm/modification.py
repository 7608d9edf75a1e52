"""Modification: the text of a document with neutral forms, or with the genders swapped. English.

Counterfactual data augmentation (Lu et al. 2018, arXiv 1807.11714; Zhao et al. 2018, arXiv 1804.06876) swaps every
gendered word of a document, so the document stays consistent; with half of the documents swapped, both genders stand
beside the same words equally often. `her` is `his` before a noun and `him` elsewhere, `his` is `her` before a noun and
`hers` elsewhere: what follows is taken for a noun's phrase unless it is one of the words that begin something else.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

Edited = tuple[str, int]
_WORD = re.compile(r"(?<![\w'’-])([A-Za-z]+)(?![\w-])")
_NEXT = re.compile(r"[ \n]([A-Za-z'’-]+)")


@cache
def _tables() -> dict:
    return yaml.safe_load((Path(__file__).parent / "swaps.yaml").read_text())


@cache
def _pairs(names: bool) -> dict[str, str]:
    table = _tables()
    found: dict[str, str] = {}
    for a, b in [*table["pairs"], *(table["names"] if names else [])]:
        found.setdefault(a, b)
        found.setdefault(b, a)
    return found


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


def neutral_terms(text: str) -> Edited:
    """Words that name a gender without need, in a form without: policeman, police officer."""
    table, edits = _tables()["neutral"], 0

    def form(match: re.Match[str]) -> str:
        nonlocal edits
        neutral = table.get(match[1].lower())
        if neutral is None:
            return match[0]
        edits += 1
        return _cased(neutral, match[1])

    return _WORD.sub(form, text), edits


def counterfactual(text: str, names: bool = False) -> Edited:
    """Every gendered word of the text swapped for its counterpart.

    Args:
        names: first names too, in fixed pairs, so a person keeps one name throughout.
    """
    pairs, edits = _pairs(names), 0

    def form(match: re.Match[str]) -> str:
        nonlocal edits
        word = match[1].lower()
        if word in ("her", "his", "him", "hers"):
            other = {"him": "her", "hers": "his"}.get(word) or (
                ("his" if word == "her" else "her")
                if _noun_follows(text, match.end())
                else ("him" if word == "her" else "hers")
            )
        elif word not in pairs or (word in _given_names() and not match[1][0].isupper()):
            return match[0]
        else:
            other = pairs[word]
        edits += 1
        return _cased(other, match[1])

    return _WORD.sub(form, text), edits


@cache
def _given_names() -> frozenset[str]:
    return frozenset(name for pair in _tables()["names"] for name in pair)


def _noun_follows(text: str, end: int) -> bool:
    following = _NEXT.match(text, end)
    return following is not None and following[1].lower() not in _tables()["no_noun"]
