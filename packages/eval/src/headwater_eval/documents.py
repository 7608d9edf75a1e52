"""Reading the text of a corpus artefact: Parquet shards with the columns id, source, lang and text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ._contracts.errors import UserError


class Document(NamedTuple):
    """What evaluation needs of a document."""

    id: str
    source: str
    lang: str | None
    text: str

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode())


def stream(corpus: Path, split: str) -> Iterator[Document]:
    """The documents of one split (train or heldout) in training order, a few MB in memory at a time.

    Raises:
        UserError: the split has no shard, or a shard is no Parquet file with these columns.
    """
    shards = sorted((corpus / split).glob("part-*.parquet"))
    if not shards:
        raise UserError(f"{corpus / split}: no part-*.parquet in it; make the corpus again")
    for shard in shards:
        try:
            for batch in pq.ParquetFile(shard).iter_batches(1024, columns=list(Document._fields)):
                yield from map(Document, *(batch.column(name).to_pylist() for name in Document._fields))
        except (pa.ArrowInvalid, KeyError, ValueError) as e:
            raise UserError(f"{shard}: not a shard of documents ({e}); make the corpus again") from None


def choose(documents: list[Document], max_bytes: int, seed: int) -> list[Document]:
    """Whole documents of at most `max_bytes` together, by a seeded choice of ids, in their given order.

    Empty documents are left out: nothing can be predicted of them.
    """
    chosen, total = set(), 0
    for document in sorted(documents, key=lambda d: seeded_rank(seed, d.id)):
        if document.text and total + document.bytes <= max_bytes:
            chosen.add(document.id)
            total += document.bytes
    return [d for d in documents if d.id in chosen]


def seeded_rank(seed: int, identifier: str) -> str:
    """A key that puts ids in a random order which depends on nothing but the seed and the id."""
    return hashlib.sha256(f"{seed}/{identifier}".encode()).hexdigest()
