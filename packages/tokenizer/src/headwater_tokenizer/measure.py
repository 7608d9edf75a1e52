"""How well a vocabulary fits a text: bytes a token, tokens a word, unused and single-byte tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from headwater_tokenizer.classes import class_table
from headwater_tokenizer.corpus import Batch
from headwater_tokenizer.encoder import Encoder, buffers
from headwater_tokenizer.pieces import count_words


@dataclass
class Counts:
    """Totals over some documents."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of text."""
    words: int = 0
    """Runs without white space; a Chinese sentence is one, so compare languages by bytes instead."""
    tokens: int = 0

    def add(self, other: Counts) -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        self.words += other.words
        self.tokens += other.tokens

    def figures(self) -> dict:
        """The totals, bytes a token and tokens a word (fertility), as numbers for metrics.json."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "words": self.words,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes / self.tokens if self.tokens else 0.0,
            "tokens_per_word": self.tokens / self.words if self.words else 0.0,
        }


def measure(encoder: Encoder, batches: Iterable[Batch]) -> tuple[dict, np.ndarray]:
    """Encode some documents and count.

    Returns:
        Figures (`Counts.figures`; `single_byte_share` and `unknown_share`, of the tokens; and `by_source`),
        and how often each id occurred: int64 [vocab_size].
    """
    sources: dict[str, Counts] = defaultdict(Counts)
    occurrences = np.zeros(encoder.vocab_size, np.int64)
    for batch in batches:
        ids, lengths = encoder.encode_column(batch.texts)
        occurrences += np.bincount(ids, minlength=encoder.vocab_size)
        for source, counts in count_sources(batch, lengths).items():
            sources[source].add(counts)
    whole = Counts()
    for counts in sources.values():
        whole.add(counts)
    figures = whole.figures()
    unknown = int(occurrences[encoder.unknown]) if encoder.unknown is not None else 0
    for name, count in (("single_byte", int(occurrences[encoder.byte_entries].sum())), ("unknown", unknown)):
        figures[f"{name}_share"] = count / whole.tokens if whole.tokens else 0.0
    figures["by_source"] = {name: sources[name].figures() for name in sorted(sources)}
    return figures, occurrences


def count_sources(batch: Batch, tokens: np.ndarray) -> dict[str, Counts]:
    """Totals of a batch by source, of documents with so many tokens each, (documents,) int64."""
    data, offsets = buffers(batch.texts)
    names = sorted(set(batch.sources))
    number = {name: i for i, name in enumerate(names)}
    which = np.array([number[source] for source in batch.sources], np.int64)
    sums = [
        np.bincount(which, values, len(names)).astype(np.int64)
        for values in (np.ones(len(which)), np.diff(offsets), count_words(data, offsets, class_table()), tokens)
    ]
    return {name: Counts(*(int(column[i]) for column in sums)) for i, name in enumerate(names)}
