"""Benchmark items as n-grams: what is looked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from .._contracts.errors import UserError
from ..config import DecontaminateConfig
from ..words import WordStream, ngram_hashes, word_stream


@dataclass(frozen=True)
class Items:
    """Benchmark items as n-grams."""

    table: pl.DataFrame
    """item, task, id, words, n (the length of its n-grams, 0: too short to look for), ngrams (distinct ones)."""
    grams: pl.DataFrame
    """item, n, gram (uint64), at (its word in the item): a row an n-gram."""
    words: WordStream

    def by_length(self) -> dict[int, np.ndarray]:
        """n -> sorted distinct n-grams, uint64."""
        return {
            int(n): np.unique(part["gram"].to_numpy()) for (n,), part in self.grams.group_by("n", maintain_order=True)
        }  # type: ignore[misc]


def load_items(folder: Path, config: DecontaminateConfig) -> Items:
    """Every TASK.jsonl of an items artefact as n-grams.

    An item of fewer words than an n-gram is looked for whole; below `min_item_words` it is not looked for.

    Raises:
        UserError: no task file, or a line that is no item.
    """
    files = sorted(p for p in folder.glob("*.jsonl") if p.name != "rejects.jsonl")
    if not files:
        raise UserError(f"{folder}: no TASK.jsonl; run headwater-eval items")
    rows, texts = [], []
    for path in files:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                item = json.loads(line)
                rows.append((item["task"], str(item["id"])))
                texts.append(str(item["text"]))
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}: line {number} is no item (id, task, text); make the items again") from None
    stream = word_stream(texts)
    lengths = np.diff(stream.starts)
    n_of = np.where(lengths >= config.n, config.n, lengths)
    n_of = np.where(lengths < config.min_item_words, 0, n_of)
    parts = [pl.DataFrame(schema={"item": pl.Int64, "gram": pl.UInt64, "at": pl.Int64, "n": pl.Int64})]
    for n in sorted(set(n_of.tolist()) - {0}):
        grams, positions = ngram_hashes(stream, n)
        owner = np.searchsorted(stream.starts, positions, side="right") - 1
        mine = n_of[owner] == n
        at = positions - stream.starts[owner]
        parts.append(
            pl.DataFrame({"item": owner[mine], "gram": grams[mine], "at": at[mine]}).with_columns(n=pl.lit(n, pl.Int64))
        )
    grams_table = pl.concat(parts)
    table = pl.DataFrame(rows, schema=["task", "id"], orient="row").with_columns(
        item=pl.int_range(len(rows), dtype=pl.Int64), words=pl.Series(lengths), n=pl.Series(n_of)
    )
    counts = grams_table.group_by("item").agg(pl.col("gram").n_unique().alias("ngrams"))
    table = table.join(counts, on="item", how="left", maintain_order="left").with_columns(pl.col("ngrams").fill_null(0))
    return Items(table, grams_table, stream)
