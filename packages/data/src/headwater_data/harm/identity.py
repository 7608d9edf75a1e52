"""How often groups of people are named, and next to what: by group, so that they can be compared.

For each group: mentions a million words; for each list of words beside it: the share of mentions with one of them
within `WINDOW` words, and the words that stand there more often than beside the dimension's other groups, by their
log-odds ratio with a Dirichlet prior (Monroe, Colaresi and Quinn 2008, section 3.3.1), in standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from ..words import WordStream, word_stream

WINDOW = 10
SHOWN = 5
PRIOR = 0.5


class IdentityCounts:
    """Counts over texts that are given bit by bit."""

    def __init__(self) -> None:
        table = yaml.safe_load((Path(__file__).parent / "identity_terms.yaml").read_text())
        self.dimensions: dict[str, dict[str, list[str]]] = table["groups"]
        self.beside: dict[str, list[str]] = table["beside"]
        self.groups = [(d, g) for d, groups in self.dimensions.items() for g in groups]
        terms = [(w, i) for i, (d, g) in enumerate(self.groups) for w in self.dimensions[d][g]]
        self.term_keys, self.term_group = _lookup(terms)
        attributes = list(dict.fromkeys(w for words in self.beside.values() for w in words))
        self.attributes = attributes
        self.attribute_keys, self.attribute_of = _lookup([(w, i) for i, w in enumerate(attributes)])
        self.words = 0
        self.mentions = np.zeros(len(self.groups), np.int64)
        self.with_list = np.zeros((len(self.groups), len(self.beside)), np.int64)
        self.near = np.zeros((len(self.groups), len(attributes)), np.int64)

    def add(self, texts: pl.Series | list[str]) -> None:
        """Count the texts."""
        stream = word_stream(texts)
        self.words += len(stream.hashes)
        at, which = _find(stream, self.term_keys, self.term_group)
        places, attribute = _find(stream, self.attribute_keys, self.attribute_of)
        self.mentions += np.bincount(which, minlength=len(self.groups))
        if not len(at) or not len(places):
            return
        text_of = np.searchsorted(stream.starts, at, side="right") - 1
        low = np.searchsorted(places, np.maximum(at - WINDOW, stream.starts[text_of]))
        high = np.searchsorted(places, np.minimum(at + WINDOW + 1, stream.starts[text_of + 1]))
        rows = np.repeat(np.arange(len(at)), high - low)
        near = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
        near, rows = near[places[near] != at[rows]], rows[places[near] != at[rows]]  # queen is not beside itself
        np.add.at(self.near, (which[rows], attribute[near]), 1)
        for i, words in enumerate(self.beside.values()):
            mine = np.isin(attribute[near], [self.attributes.index(w) for w in words])
            self.with_list[:, i] += np.bincount(which[np.unique(rows[mine])], minlength=len(self.groups))

    def _typical(self, z: list[float], words: list[str]) -> dict[str, float]:
        """The words of a list that stand beside a group most typically, of those with z above 1.96 (p < 0.05)."""
        ranked = sorted(((z[self.attributes.index(w)], w) for w in words), reverse=True)
        return {w: round(value, 2) for value, w in ranked[:SHOWN] if value > 1.96}

    def result(self) -> dict:
        """dimension -> group -> mentions, per_million_words, beside (list -> share of mentions), words (list -> the
        most typical ones with their z)."""
        found: dict[str, dict] = {}
        for i, (dimension, group) in enumerate(self.groups):
            others = [j for j, (d, _) in enumerate(self.groups) if d == dimension and j != i]
            n = int(self.mentions[i])
            typical = log_odds(self.near[i], self.near[others].sum(axis=0))
            found.setdefault(dimension, {})[group] = {
                "mentions": n,
                "per_million_words": round(1e6 * n / max(self.words, 1), 2),
                "beside": {
                    name: round(float(self.with_list[i, k]) / n, 5) if n else 0.0 for k, name in enumerate(self.beside)
                },
                "typical": {name: self._typical(typical, words) for name, words in self.beside.items()},
            }  # fmt: skip
        return found


def _lookup(words: list[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    keys = word_stream([w for w, _ in words]).hashes
    order = np.argsort(keys)
    return keys[order], np.array([i for _, i in words], np.int64)[order]


def _find(stream: WordStream, keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place = np.minimum(np.searchsorted(keys, stream.hashes), len(keys) - 1)
    at = np.flatnonzero(keys[place] == stream.hashes)
    return at, values[place[at]]


def log_odds(here: np.ndarray, there: np.ndarray) -> list[float]:
    """z of each word's log-odds ratio between two bodies of counts, with a flat Dirichlet prior."""
    a, b = here + PRIOR, there + PRIOR
    total_a, total_b = a.sum(), b.sum()
    return [
        (math.log(x / (total_a - x)) - math.log(y / (total_b - y))) / math.sqrt(1 / x + 1 / y)
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]


def analyse(batches: Iterable[pl.Series]) -> dict:
    """The analysis of texts, batch by batch."""
    counts = IdentityCounts()
    for texts in batches:
        counts.add(texts)
    return counts.result()


def gap(result: dict, dimension: str, name: str) -> float:
    """Largest over smallest share of mentions beside a list, over the groups of a dimension that are named often."""
    shares = [g["beside"][name] for g in result[dimension].values() if g["mentions"] >= 100 and g["beside"][name]]
    return max(shares) / min(shares) if len(shares) > 1 else 1.0
