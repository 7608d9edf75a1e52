"""The corpus as leakage is measured on it: which documents were read how often, and where a string stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from .._contracts.errors import UserError
from ..documents import seeded_rank

CANARIES = "canaries"
"""Source of the documents that `headwater-data mix` made up, which are measured by themselves."""


class Facts(NamedTuple):
    """What is known of a document without its text."""

    id: str
    source: str
    bytes: int
    repeats: int
    """How often it stands in the split."""


def facts(corpus: Path, split: str, seed: int) -> list[Facts]:
    """Every document of a split once, in a seeded random order, canaries left out.

    Raises:
        UserError: the split has no readable shard.
    """
    table = (
        _scan(corpus, split)
        .filter(pl.col("source") != CANARIES)
        .select("id", "source", bytes=pl.col("text").str.len_bytes())
        .group_by("id")
        .agg(pl.col("source").first(), pl.col("bytes").first(), repeats=pl.len())
    )
    found = [Facts(*row) for row in _collected(table, corpus / split).iter_rows()]
    return sorted(found, key=lambda d: seeded_rank(seed, d.id))


def texts(corpus: Path, split: str, ids: Sequence[str]) -> dict[str, str]:
    """Id -> text of some documents."""
    table = _scan(corpus, split).filter(pl.col("id").is_in(list(ids))).select("id", "text").unique("id")
    return dict(_collected(table, corpus / split).iter_rows())


def occurrences(corpus: Path, strings: Sequence[str]) -> dict[str, tuple[int, list[str]]]:
    """Of each string that stands in the training text: how often, repetitions counted, and in which documents.

    One pass over the text, whatever the number of strings (Aho-Corasick).
    """
    wanted = sorted({s for s in strings if s})
    if not wanted:
        return {}
    hits = (
        _scan(corpus, "train")
        .select("id", hit=pl.col("text").str.extract_many(wanted, overlapping=True))
        .filter(pl.col("hit").list.len() > 0)
    )
    times: dict[str, int] = defaultdict(int)
    holders: dict[str, set[str]] = defaultdict(set)
    for id_, found in _collected(hits, corpus / "train").iter_rows():
        for string in found:
            times[string] += 1
            holders[string].add(id_)
    return {string: (times[string], sorted(holders[string])) for string in sorted(times)}


def _scan(corpus: Path, split: str) -> pl.LazyFrame:
    shards = sorted((corpus / split).glob("part-*.parquet"))
    if not shards:
        raise UserError(f"{corpus / split}: no part-*.parquet in it; make the corpus again")
    return pl.scan_parquet(shards)


def _collected(table: pl.LazyFrame, folder: Path) -> pl.DataFrame:
    try:
        return table.collect(engine="streaming")
    except pl.exceptions.PolarsError as e:
        raise UserError(f"{folder}: not readable as documents ({e}); make the corpus again") from None
