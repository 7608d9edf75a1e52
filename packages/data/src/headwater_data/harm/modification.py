"""Modification: the text of a document with neutral forms, or with the genders swapped. English.

The swap is the contract's (_contracts/counterfactual.py): of a whole document, so that it stays consistent. With half
of the documents swapped, both genders stand beside the same words equally often.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

from .._contracts.counterfactual import Swapper, gender

Edited = tuple[str, int]
_WORD = re.compile(r"(?<![\w'’-])([A-Za-z]+)(?![\w-])")


@cache
def _neutral() -> dict[str, str]:
    return yaml.safe_load((Path(__file__).parent / "neutral.yaml").read_text())


@cache
def _swapper(names: bool) -> Swapper:
    return Swapper({"gender": gender()}, names)


def neutral_terms(text: str) -> Edited:
    """Words that name a gender without need, in a form without: policeman, police officer."""
    table, edits = _neutral(), 0

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
    swapped, edits = _swapper(names).swap(text)
    return swapped, edits.total()


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word
