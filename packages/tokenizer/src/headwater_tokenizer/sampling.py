"""Which documents of the corpus a tokenizer is learned from: a random sample by weight, the same wherever they lie."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.corpus import Batch, RowGroup, row_groups


@dataclass(frozen=True)
class Drawing:
    """How a random sample of documents is drawn: each has a rank, and the lowest are taken up to a cap.

    A rank is an exponential variable from a keyed hash of the document's id, of the rate that is its weight
    (Efraimidis and Spirakis 2006, algorithm A): the draw depends on ids and seed alone, neither on the order nor on the
    sharding. A document that the mixture repeats is taken as often as it stands there, or not at all.
    """

    seed: int
    source_weights: dict[str, float] = field(default_factory=dict)
    language_weights: dict[str, float] = field(default_factory=dict)
    """How much likelier a document is drawn, 1 where not named; a document's weight is the product of both."""

    def ranks(self, batch: Batch) -> np.ndarray:
        """Of each document, (documents,) float64: the lower the sooner it is drawn; infinite for never."""
        found = []
        for id_, source, lang in zip(batch.ids, batch.sources, batch.langs, strict=True):
            key = hashlib.blake2b(f"{self.seed}\0{id_}".encode(), digest_size=8).digest()
            weight = self.source_weights.get(source, 1.0) * self.language_weights.get(lang, 1.0)
            draw = -math.log1p(-int.from_bytes(key, "big") / 2**64) if weight else math.inf
            found.append(draw / weight if weight else draw)
        return np.array(found, np.float64)

    def refuse_unmet(self, corpus: Path, sources: set[str], languages: set[str]) -> None:
        """Refuse weights of what the corpus does not have.

        Raises:
            UserError: naming the first.
        """
        for kind, weights, met in (
            ("source", self.source_weights, sources),
            ("language", self.language_weights, languages),
        ):
            if unmet := sorted(set(weights) - met):
                raise UserError(f"{corpus}: no document of {kind} {unmet[0]}, which {kind}_weights names; it has "
                                f"{', '.join(sorted(met - {''})[:20])}")  # fmt: skip


@dataclass
class Ranked:
    """Ranks and sizes of some documents, and the sources and languages met."""

    ranks: np.ndarray
    """(documents,) float64."""
    sizes: np.ndarray
    """(documents,) int64, bytes of text."""
    sources: set[str]
    languages: set[str]
    rejected: int = 0
    """Records set aside, since a text, id or source is null or not UTF-8."""


def rank(batches: Iterable[Batch], drawing: Drawing) -> Ranked:
    """Rank some documents."""
    found = Ranked(np.zeros(0), np.zeros(0, np.int64), set(), set())
    ranks, sizes = [found.ranks], [found.sizes]
    for batch in batches:
        ranks.append(drawing.ranks(batch))
        sizes.append(pc.binary_length(batch.texts).to_numpy())
        found.sources.update(batch.sources)
        found.languages.update(batch.langs)
        found.rejected += len(batch.rejects)
    found.ranks, found.sizes = np.concatenate(ranks), np.concatenate(sizes)
    return found


def highest_rank(parts: list[Ranked], drawing: Drawing, cap: int, corpus: Path) -> float:
    """The rank up to which documents are taken, so that they have at most `cap` bytes; at least one is taken.

    Raises:
        UserError: a weight is of a source or language that the corpus does not have, every document has weight 0, or
            there is none.
    """
    drawing.refuse_unmet(
        corpus, set().union(*(part.sources for part in parts)), set().union(*(part.languages for part in parts))
    )
    ranks, sizes = np.concatenate([p.ranks for p in parts]), np.concatenate([p.sizes for p in parts])
    if not len(ranks):
        raise UserError(
            f"{corpus / 'train'}: no usable document in it, so nothing to learn from; make the corpus again"
        )
    distinct, group = np.unique(ranks, return_inverse=True)  # ascending; repeats share a rank
    within = np.cumsum(np.bincount(group, sizes, minlength=1))[: int(np.isfinite(distinct).sum())]
    if not len(within):
        raise UserError(f"{corpus}: every document has weight 0, so nothing is left to learn from; raise a weight")
    count = np.searchsorted(within, cap, side="right")
    return float(distinct[max(int(count), 1) - 1])


def drawn(group: Iterable[Batch], drawing: Drawing, highest: float) -> Iterator[Batch]:
    """The documents of some batches that are taken."""
    for batch in group:
        rows = np.flatnonzero(drawing.ranks(batch) <= highest).tolist()
        ids, sources, langs = ([column[i] for i in rows] for column in (batch.ids, batch.sources, batch.langs))
        yield Batch(ids, batch.texts.take(pa.array(rows, pa.int64())), sources, langs)


def draw(corpus: Path, cap: int, drawing: Drawing) -> Iterator[Batch]:
    """A sample of the train split's documents, at most `cap` bytes of text, in this process; some 16 bytes a document
    in memory, never the texts. Raises as `highest_rank`."""
    groups: list[RowGroup] = row_groups(corpus, "train")
    highest = highest_rank([rank(group.read(), drawing) for group in groups], drawing, cap, corpus)
    for group in groups:
        yield from drawn(group.read(), drawing, highest)
