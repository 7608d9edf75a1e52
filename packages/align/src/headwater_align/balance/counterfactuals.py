"""Conversations with the terms of groups shifted: the same turns about other people."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product

from .._contracts.counterfactual import Swapper, TermSet
from ..conversation import identity
from .config import BalanceConfig

_NAMED = re.compile(r"\b([A-Z][a-z]+)[ \n]([A-Z][a-z]+)\b")
_FUNCTION_WORDS = frozenset([
    "A", "After", "All", "Also", "An", "And", "Any", "As", "At", "Because", "Before", "But", "By", "Dear", "Do",
    "Does", "Each", "For", "From", "Give", "Hello", "Here", "How", "However", "I", "If", "In", "Is", "It", "Its",
    "Let", "Many", "Mr", "Mrs", "Ms", "My", "No", "Of", "On", "One", "Or", "Our", "Please", "She", "He", "So",
    "Some", "That", "The", "Their", "Then", "There", "These", "They", "This", "Those", "Through", "To", "What",
    "When", "Where", "Which", "While", "Who", "Why", "With", "Write", "You", "Your"
])  # fmt: skip


def names_somebody(text: str) -> bool:
    """Whether the text has two capitalised words in a row that look like a name: Marie Curie, Queen Victoria.

    Sentences that begin with a function word (The Nile) are passed over, titles with one name (Mr Smith) too. Places
    (New York) count: better a conversation too few than a false one.
    """
    return any(match[1] not in _FUNCTION_WORDS for match in _NAMED.finditer(text))


class Counterfactuals:
    """Makes and counts the counterfactuals of a conversation: every combination of one shift a term set."""

    def __init__(self, config: BalanceConfig):
        self.sets: dict[str, TermSet] = config.term_sets
        self._swappers = {name: Swapper({name: terms}, config.names) for name, terms in config.term_sets.items()}

    def count(self, record: dict) -> Counter[tuple[str, str]]:
        """Terms of a conversation by set and group."""
        found: Counter[tuple[str, str]] = Counter()
        for swapper in self._swappers.values():
            for message in record["messages"]:
                found += swapper.count(message["content"])
        return found

    def all(self, record: dict) -> list[tuple[dict, Counter[str]]]:
        """Each combination but the record itself, with the number of terms shifted by set; with the record itself,
        every group of a set stands equally often in each place."""
        shifts = product(*(range(len(self.sets[name].groups)) for name in self._of(record)))
        return [self._shifted(record, combination) for combination in shifts if any(combination)]

    def drawn(self, record: dict) -> list[tuple[dict, Counter[str]]]:
        """One combination by the record's hash, all equally likely; empty where that is the record itself."""
        found = [None, *self.all(record)]
        drawn = found[int(identity("substitute", record["id"]), 16) % len(found)]
        return [] if drawn is None else [drawn]

    def _of(self, record: dict) -> list[str]:
        """The sets with terms in the record."""
        found = {name for name, _ in self.count(record)}
        return [name for name in self.sets if name in found]

    def _shifted(self, record: dict, shifts: tuple[int, ...]) -> tuple[dict, Counter[str]]:
        """The record under an id and source of its own, with the terms of each of its sets shifted."""
        terms: Counter[str] = Counter()
        texts = [message["content"] for message in record["messages"]]
        for name, shift in zip(self._of(record), shifts, strict=True):
            for i, text in enumerate(texts):
                texts[i], edits = self._swappers[name].swap(text, shift)
                terms += edits
        messages = [{**message, "content": text} for message, text in zip(record["messages"], texts, strict=True)]
        about = {"id": identity(messages), "source": f"{record['source']}/counterfactual"}
        return {**record, **about, "messages": messages, "counterfactual_of": record["id"]}, terms
