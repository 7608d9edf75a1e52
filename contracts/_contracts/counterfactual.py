"""Texts in which one group's words stand where another's stood: counterfactual data augmentation.

Lu et al. 2018 (arXiv:1807.11714) and Zhao et al. 2018 (arXiv:1804.06876) swap every gendered word of a text, so that
the text stays consistent; first names too, in fixed pairs: Hall Maudslay et al. 2019 (arXiv:1909.00871). A term set
names any number of groups; a shift by k puts a word of the k-th next group in the place of each word. English.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from .config import Config, parse, read_yaml
from .errors import UsageError

BUILT_IN = Path(__file__).with_name("gender.yaml")


class TermSet(Config):
    """Words that name the groups of one attribute.

    A term that is written with a capital (a name, a faith) is found only so; any other in any case. Where a term
    stands in several rows, the first one says what takes its place.
    """

    groups: tuple[str, ...] = Field(min_length=2, description="names of the groups, in the order of the columns")
    terms: tuple[tuple[str, ...], ...] = Field((), description="rows of words or phrases, one a group")
    names: tuple[tuple[str, ...], ...] = Field((), description="rows of first names, one a group; taken on request")
    before_noun: dict[str, tuple[str, str]] = Field(
        {}, description="of two groups: word -> what takes its place before a noun's phrase, and elsewhere"
    )
    no_noun: tuple[str, ...] = Field((), description="words with which no noun's phrase begins")

    @model_validator(mode="after")
    def _whole(self) -> TermSet:
        for row in (*self.terms, *self.names):
            if len(row) != len(self.groups) or not all(term.strip() for term in row):
                raise ValueError(f"a row needs one word for each of {', '.join(self.groups)}: {list(row)}")
        if not self.terms:
            raise ValueError("no terms; write rows of words, one a group")
        if self.before_noun and len(self.groups) != 2:
            raise ValueError("before_noun is for sets of two groups")
        known = {term for row in self.terms for term in row}
        for word in self.before_noun:
            if word not in known:
                raise ValueError(f"before_noun: {word} is in no row, so nobody knows its group")
        return self

    @property
    def reversible(self) -> bool:
        """Whether no term is in two rows or depends on what follows, so that a swap undone is the text."""
        terms = [term.lower() for row in (*self.terms, *self.names) for term in row]
        return not self.before_noun and len(set(terms)) == len(terms)


def read(path: Path) -> dict[str, TermSet]:
    """Term sets by name, of a YAML file.

    Raises:
        UsageError: no such file, or a set that is none, in one line.
    """
    sets = read_yaml(path)
    if not sets:
        raise UsageError(f"{path}: no term set in it; write NAME: {{groups: [a, b], terms: [[x, y]]}}")
    found = {}
    for name, values in sets.items():
        if not isinstance(values, dict):
            raise UsageError(f"{path}: {name}: a mapping with groups and terms is needed")
        found[str(name)] = parse(TermSet, values, f"{path}: {name}")
    return found


@cache
def gender() -> TermSet:
    """The built-in set: male and female words and names."""
    return read(BUILT_IN)["gender"]


class Swapper:
    """Finds the terms of several sets in a text, and shifts them.

    Args:
        sets: by name; a term that two sets know belongs to the first.
        names: whether first names count.
    """

    def __init__(self, sets: Mapping[str, TermSet], names: bool = False):
        self._sets = dict(sets)
        self._found: dict[str, tuple[str, str, tuple[str, ...], int]] = {}  # lower -> set, term, its row, column
        for name, terms in self._sets.items():
            for row in (*terms.terms, *(terms.names if names else ())):
                for column, term in enumerate(row):
                    self._found.setdefault(_plain(term), (name, " ".join(term.split()), row, column))
        phrases = sorted((term for term in self._found if not term.isalpha()), key=lambda term: (-len(term), term))
        longer = "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in phrases) or r"(?!)"
        # A word that a hyphen or an apostrophe joins to another before it is part of that; 's may follow.
        self._terms = re.compile(
            rf"(?<![\w'’-])(?:(?P<article>[Aa]n?)(?P<gap>\s))?(?P<term>(?i:{longer})|[^\W\d_]+)(?![\w-])"
        )

    def swap(self, text: str, shift: int = 1) -> tuple[str, Counter[str]]:
        """The text with every term shifted by so many groups, and the number of terms by set.

        Case is kept (she, She, SHE), and a and an before a term fit it.
        """
        edits: Counter[str] = Counter()

        def other(match: re.Match[str]) -> str:
            known = self._known(match["term"])
            if known is None:
                return match[0]
            name, term, row, column = known
            terms = self._sets[name]
            target = row[(column + shift) % len(row)]
            if (column + shift) % len(row) == column:
                return match[0]
            if term in terms.before_noun:
                target = terms.before_noun[term][0 if _noun_follows(text, match.end(), terms.no_noun) else 1]
            edits[name] += 1
            word = _cased(target, match["term"], term, _opens(text, match.start("term")))
            if match["article"] is None:
                return word
            article = match["article"]
            if _takes_an(term) != _takes_an(target):
                article = article[0] + ("n" if _takes_an(target) else "")
            return f"{article}{match['gap']}{word}"

        return self._terms.sub(other, text), edits

    def count(self, text: str) -> Counter[tuple[str, str]]:
        """Terms by set and group: Counter[(set, group)]."""
        found: Counter[tuple[str, str]] = Counter()
        for match in self._terms.finditer(text):
            known = self._known(match["term"])
            if known is not None:
                found[known[0], self._sets[known[0]].groups[known[3]]] += 1
        return found

    def _known(self, word: str) -> tuple[str, str, tuple[str, ...], int] | None:
        known = self._found.get(_plain(word))
        return None if known is None or (known[1][0].isupper() and not word[0].isupper()) else known


def _plain(term: str) -> str:
    return " ".join(term.lower().split())


def _cased(target: str, like: str, term: str, opens: bool) -> str:
    """The target in the case of what it replaces: capitals throughout; a first one that its place gave, not itself."""
    if like.isupper() and len(like) > 1:
        return target.upper()
    if like[0].isupper() and (term[0].islower() or opens):
        return target[0].upper() + target[1:]
    return target


def _opens(text: str, start: int) -> bool:
    """Whether a sentence begins here."""
    before = text[:start].rstrip(" \t\"'“‘(*_")
    return not before or before[-1] in ".!?:\n"


def _takes_an(word: str) -> bool:
    return re.match(r"(?!eu|uni|use|one)[aeiou]|hour|heir|hono", word.lower()) is not None


_NEXT = re.compile(r"[ \n]([A-Za-z'’-]+)")


def _noun_follows(text: str, end: int, no_noun: tuple[str, ...]) -> bool:
    """What follows is taken for a noun's phrase unless it is one of the words that begin something else."""
    following = _NEXT.match(text, end)
    return following is not None and following[1].lower() not in no_noun
