"""Reading a corpus artefact: Parquet shards in train/ and heldout/, row group by row group."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater_tokenizer._contracts.errors import UserError

SPLITS = ("train", "heldout")
BATCH_ROWS = 512  # documents in memory at a time: a few MB of text, so memory does not grow with the shard


@dataclass
class Batch:
    """Some documents of one row group, in order; a document whose text is unusable is in `rejects` instead."""

    ids: list[str] = field(default_factory=list)
    texts: pa.LargeStringArray = field(default_factory=lambda: pa.array([], pa.large_string()))
    sources: list[str] = field(default_factory=list)
    langs: list[str] = field(default_factory=list)
    """Language codes; empty strings where the corpus has no column lang or a null in it."""
    rejects: list[dict] = field(default_factory=list)
    """`{"id", "source", "rule"}` a document."""


def shards(corpus: Path, split: str) -> list[Path]:
    """The split's Parquet files, in order.

    Raises:
        UserError: there is none.
    """
    found = sorted((corpus / split).glob("*.parquet"))
    if not found:
        raise UserError(f"{corpus / split}: no Parquet shard there, so nothing to read; make the corpus again")
    return found


def row_groups(shard: Path) -> int:
    """Number of row groups of a shard, its columns checked.

    Raises:
        UserError: not Parquet, or a needed column is missing or no string.
    """
    try:
        metadata = pq.ParquetFile(shard)
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"{shard}: not readable as Parquet ({e}); make the corpus again") from None
    columns = {f.name: f.type for f in metadata.schema_arrow}
    for name in ("id", "text", "source"):
        kind = columns.get(name)
        if kind is None:
            raise UserError(f"{shard}: no column {name} among {', '.join(columns)}; a corpus has id, text and source")
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UserError(f"{shard}: column {name} is {kind}, but must be a string")
    return metadata.num_row_groups


def read_group(shard: Path, group: int) -> Iterator[Batch]:
    """The documents of one row group, `BATCH_ROWS` at a time."""
    source = pq.ParquetFile(shard)
    names = [name for name in ("id", "text", "source", "lang") if name in source.schema_arrow.names]
    for rows in source.iter_batches(BATCH_ROWS, row_groups=[group], columns=names):
        columns = [rows.column(name).cast(pa.large_string(), safe=False) for name in names]
        langs = columns[3].fill_null("") if len(columns) > 3 else pa.array([""] * len(rows), pa.large_string())
        columns = columns[:3]
        if any(column.null_count for column in columns) or not all(map(_is_utf8, columns)):
            yield _batch(*map(_strings, [*columns, langs]))
        else:
            ids, texts, sources = columns
            yield Batch(ids.to_pylist(), texts, sources.to_pylist(), langs.to_pylist())


def read_split(corpus: Path, split: str) -> Iterator[Batch]:
    """Every document of a split, in order."""
    for shard in shards(corpus, split):
        for group in range(row_groups(shard)):
            yield from read_group(shard, group)


def draw(
    corpus: Path,
    cap: int,
    seed: int,
    source_weights: dict[str, float] | None = None,
    language_weights: dict[str, float] | None = None,
) -> Iterator[Batch]:
    """A random sample of the train split's documents, at most `cap` bytes of text.

    Documents are ranked by a keyed hash of their id and taken from the lowest until the next would pass the
    cap (at least one is taken): the draw depends on ids and seed alone, neither on the order nor on the
    sharding. A document that the mixture repeats is taken as often as it stands there, or not at all. It holds
    some 50 bytes a document in memory, never the texts.

    Args:
        source_weights, language_weights: how much likelier a document is drawn, 1 where not named; a document's weight
            is their product. Ranks are exponential variables of that rate (Efraimidis and Spirakis 2006, algorithm A).

    Raises:
        UserError: a weight is of a source or language that the corpus does not have, or nothing is left to draw.
    """
    weigh = _Weights(source_weights or {}, language_weights or {})
    ranks_of: list[float] = []
    sizes: list[int] = []
    for batch in read_split(corpus, "train"):
        ranks_of += weigh.ranks(batch, seed)
        sizes += pc.binary_length(batch.texts).to_pylist()
    weigh.refuse_unmet(corpus)
    ranks, group = np.unique(np.array(ranks_of), return_inverse=True)  # ascending; repeats share a rank
    within = np.cumsum(np.bincount(group, sizes, minlength=1))[: int(np.isfinite(ranks).sum())]
    if len(ranks) and not len(within):
        raise UserError(f"{corpus}: every document has weight 0, so nothing is left to learn from; raise a weight")
    taken = np.searchsorted(within, cap, side="right")
    highest = float(ranks[max(int(taken), 1) - 1]) if len(ranks) else 0.0
    for batch in read_split(corpus, "train"):
        keep = [i for i, rank in enumerate(weigh.ranks(batch, seed)) if rank <= highest]
        columns = ([column[i] for i in keep] for column in (batch.ids, batch.sources, batch.langs))
        ids, sources, langs = columns
        yield Batch(ids, batch.texts.take(pa.array(keep, pa.int64())), sources, langs)


class _Weights:
    def __init__(self, sources: dict[str, float], languages: dict[str, float]):
        self.sources, self.languages = sources, languages
        self.met: set[str] = set()

    def ranks(self, batch: Batch, seed: int) -> list[float]:
        """Of each document, the lower the sooner it is drawn; infinite for never."""
        self.met.update(batch.sources, batch.langs)
        found = []
        for id_, source, lang in zip(batch.ids, batch.sources, batch.langs, strict=True):
            key = hashlib.blake2b(f"{seed}\0{id_}".encode(), digest_size=8).digest()
            weight = self.sources.get(source, 1.0) * self.languages.get(lang, 1.0)
            draw = -math.log1p(-int.from_bytes(key, "big") / 2**64) if weight else math.inf
            found.append(draw / weight if weight else draw)
        return found

    def refuse_unmet(self, corpus: Path) -> None:
        for kind, weights in (("source", self.sources), ("language", self.languages)):
            if unmet := sorted(set(weights) - self.met):
                raise UserError(f"{corpus}: no document of {kind} {unmet[0]}, which {kind}_weights names; it has "
                                f"{', '.join(sorted(self.met - {''})[:20])}")  # fmt: skip


def _batch(ids: list, texts: list, sources: list, langs: list) -> Batch:
    """Rows one by one: what is null or no UTF-8 is set aside."""
    good: list[tuple] = []
    rejects = []
    for *row, lang in zip(ids, texts, sources, langs, strict=True):
        bad = next((i for i, value in enumerate(row) if not isinstance(value, str)), None)
        if bad is None:
            good.append((*row, lang if isinstance(lang, str) else ""))
        else:
            fault = "is null" if row[bad] is None else "is not UTF-8"
            rule = f"{('id', 'text', 'source')[bad]} {fault}"
            rejects.append({"id": _shown(row[0]), "source": _shown(row[2]), "rule": rule})
    ids, texts, sources, langs = ([row[i] for row in good] for i in range(4))
    return Batch(ids, pa.array(texts, pa.large_string()), sources, langs, rejects)


def _is_utf8(column: pa.LargeStringArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _strings(column: pa.Array) -> list[str | bytes | None]:
    """Python strings; a value that is not UTF-8 (Parquet does not forbid it) stays bytes."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decode(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decode(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _shown(value: str | bytes | None) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
