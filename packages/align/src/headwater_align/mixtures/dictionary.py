"""Headwords and the short definitions of their first sense, from a dictionary in dictd's format.

`NAME.index` has a line `headword TAB offset TAB length`, the numbers in base 64; `NAME.dict.dz` is gzip. The two
dictionaries that the lineage carries are written by people for people, so what is no plain short definition is left
out: of GCIDE a first sense of one paragraph, of FOLDOC the first sentence.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from .._contracts.errors import UserError

SHORTEST, LONGEST = 20, 160  # characters of a definition
_DIGITS = {letter: i for i, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}

_FIRST_SENSE = re.compile(r"^ +1\. (.+?)(?=\n\s*\n|\n +\[|\Z)", re.S | re.M)
_AFTER_HEADER = re.compile(r"\A[^\n]*[\].]\n(   [^\n]+(?:\n   [^\n]+)*)")
_FOLDOC = re.compile(r"\A[^\n]+\n(?:[^ \n][^\n]*\n)*\n?\s*((?:   [^\n]+\n?)+)")


def senses(folder: Path) -> Iterator[dict[str, str]]:
    """{"word", "definition"} of every entry with a short plain definition, in the order of the index.

    Raises:
        UserError: no index or no dictionary beside it.
    """
    indexes = sorted(folder.glob("*.index"))
    if not indexes:
        raise UserError(f"{folder.name} holds no .index of a dictd dictionary; correct the task's source or reader")
    for index in indexes:
        packed = index.with_suffix(".dict.dz")
        if not packed.is_file():
            raise UserError(f"{folder.name}: {packed.name} is missing beside {index.name}; collect the source again")
        text = gzip.decompress(packed.read_bytes())
        for line in index.read_text("utf-8", errors="replace").splitlines():
            word, _, place = line.partition("\t")
            start, _, length = place.partition("\t")
            if re.fullmatch(r"[A-Za-z][A-Za-z -]{2,30}", word):
                begin = number(start)
                entry = text[begin : begin + number(length)].decode("utf-8", errors="replace")
                definition = short_definition(entry)
                head = entry[: len(word)]  # GCIDE begins every headword with a capital, FOLDOC writes it as it is
                if definition and head.casefold() == word.casefold():
                    yield {"word": head.lower() if "\\" in entry.partition("\n")[0] else head, "definition": definition}


def number(digits: str) -> int:
    """A number in dictd's base 64, the highest digit first."""
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value


def short_definition(entry: str) -> str:
    """The first sense in words alone, or nothing where it is long, short, or holds signs that words do not."""
    head = entry.partition("\n")[0]
    found = (_FIRST_SENSE.search(entry) or _AFTER_HEADER.match(entry)) if "\\" in head else _FOLDOC.match(entry)
    if not found:
        return ""
    words = " ".join(found[1].translate({ord("{"): None, ord("}"): None}).split())
    words = re.sub(r"^(<[^>]*>\s*)?(\([^)]*\)\s*)*", "", words)  # FOLDOC: <subject> (also called)
    words = " ".join(re.sub(r"\[[^\]]*\]", "", words).split())  # GCIDE: [Obs.] [1913 Webster]
    words = re.sub(r"\s*--\s?[A-Z][\w. ()&']*$", "", words)  # and who wrote it: --Milton.
    if "\\" not in head:
        words = re.split(r"(?<=[a-z)]\.)\s", words)[0]
    plain = re.fullmatch(r"(?!See |Same as )[A-Z][\w ,;:'()\"/.-]+", words, re.A)
    return words if plain and SHORTEST <= len(words) <= LONGEST else ""
