"""Stratified samples of what was kept and what was removed: some of every stage, rule and source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ..config.card import CardConfig
from ..documents import draws
from .spans import offending


@dataclass(frozen=True)
class Sample:
    """A document as the page shows it."""

    id: str
    source: str
    category: str
    url: str
    stage: str
    """Which removed it; `kept` for the corpus."""
    rule: str
    value: float | None
    threshold: float | None
    kept: str
    """Of a duplicate, the document that stayed."""
    text: str
    before: int
    """Characters of the text that are not shown: before and after what is."""
    after: int
    marks: list[tuple[int, int]]

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def draw(folders: dict[str, Path], corpus: Path | None, config: CardConfig) -> list[Sample]:
    """Samples of the rejects of each step and of the corpus, by stage, rule and source, best spread first.

    Args:
        folders: step -> documents artefact.
        corpus: the corpus artefact.
    """
    strata: dict[tuple[str, str, str], list[tuple[int, dict]]] = {}
    for row in _rows(folders, corpus):
        key = row["stage"], row["rule"], row["source"]
        (order,) = draws(f"card {config.seed}", [row["id"]])
        best = strata.setdefault(key, [])
        if len(best) < config.samples or order < best[-1][0]:
            best.append((order, row))
            best.sort(key=lambda pair: pair[0])
            del best[config.samples :]
    chosen: list[dict] = []
    for place in range(config.samples):  # the first of every stratum before the second of any
        chosen += [best[place][1] for _, best in sorted(strata.items()) if place < len(best)]
    chosen = chosen[: config.max_samples]
    chosen.sort(key=lambda row: (row["stage"] != "kept", row["stage"], row["rule"], row["source"], row["id"]))
    return [_sample(row, config.sample_characters) for row in chosen]


def _rows(folders: dict[str, Path], corpus: Path | None) -> Iterator[dict]:
    removed = ["id", "source", "stage", "rule", "value", "threshold", "text", "meta"]
    for folder in folders.values():
        for path in sorted((folder / "rejects").glob("part-*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(1000, columns=removed):
                for row in pl.from_arrow(batch).iter_rows(named=True):  # type: ignore[union-attr]
                    yield {**row, "category": "", "url": ""}
    for path in sorted((corpus / "train").glob("part-*.parquet")) if corpus else ():
        columns = ["id", "source", "category", "url", "text", "meta"]
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=columns):
            for row in pl.from_arrow(batch).iter_rows(named=True):  # type: ignore[union-attr]
                yield {**row, "stage": "kept", "rule": "", "value": None, "threshold": None}


def _sample(row: dict, most: int) -> Sample:
    text = row["text"]
    try:
        kept = str(json.loads(row["meta"] or "{}").get("kept", ""))
    except ValueError:
        kept = ""
    spans = offending(row["rule"] or "", text)
    start = max(spans[0][0] - most // 10, 0) if spans and spans[0][1] > most else 0  # show what offends
    shown = text[start : start + most]
    marks = [(max(a - start, 0), min(b - start, most)) for a, b in spans if a < start + most and b > start]
    return Sample(
        row["id"], row["source"], row["category"] or "", row["url"] or "", row["stage"], row["rule"] or "",
        row["value"], row["threshold"], kept, shown, start, len(text) - start - len(shown), marks,
    )  # fmt: skip
