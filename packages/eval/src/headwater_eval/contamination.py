"""Scores on the items that decontamination found clean, beside those that it found in the training text.

Brown et al. 2020 (arXiv:2005.14165, appendix C) score each benchmark again without the items that overlap the training
text; Chowdhery et al. 2022 (arXiv:2204.02311, section 8) set the clean part beside the whole. Which items overlap is
read item by item from `headwater-data decontaminate`, by the method that it used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._contracts.errors import UserError
from ._contracts.manifest import Manifest
from .benchmark import Benchmark, Item, Row, Scores
from .scores import score_row, scores_of
from .statistics import Estimate, difference_of_independent

FILE = "overlap.jsonl"


@dataclass(frozen=True)
class Overlap:
    """What decontamination found of the benchmark items."""

    dirty: dict[str, frozenset[str]]
    """Task -> ids of the items that some document held."""
    too_short: dict[str, int]
    """Task -> how many of its items had too few words to be looked for; a task that is not here was not searched."""


def read(folder: Path, manifest: Manifest, items: str) -> Overlap:
    """The overlap of a documents artefact.

    Args:
        manifest: of that artefact.
        items: sha256 of the manifest of the items that shall be scored.

    Raises:
        UserError: the artefact is not of `decontaminate`, or searched for other items.
    """
    if manifest.stage != "decontaminate" or not (folder / FILE).is_file():
        raise UserError(f"{folder}: no {FILE} in it; give the documents that headwater-data decontaminate wrote")
    if manifest.inputs.get("items") != items:
        raise UserError(f"{folder}: was searched for other items than these; run headwater-data decontaminate again")
    dirty: dict[str, set[str]] = {}
    for number, line in enumerate((folder / FILE).read_text("utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            if row["contaminated"]:
                dirty.setdefault(row["task"], set()).add(row["id"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{folder / FILE}: line {number} is no item found; make {folder} again") from None
    tasks = json.loads((folder / "metrics.json").read_text())["tasks"]
    return Overlap(
        {task: frozenset(ids) for task, ids in dirty.items()}, {task: row["too_short"] for task, row in tasks.items()}
    )


def subset_scores(benchmark: Benchmark, items: list[Item], rows: list[Row], overlap: Overlap | None) -> Scores:
    """Every score of a task again on its clean and on its dirty items, and dirty less clean.

    Args:
        rows: of all items, as the task's own scores are made from.
        overlap: None, or one that did not search for this task: no scores.

    Returns:
        KEY:clean, KEY:dirty and KEY:dirty-clean for each KEY that both parts have; without a dirty item KEY:clean only.
    """
    if overlap is None or benchmark.name not in overlap.too_short:
        return {}
    found = overlap.dirty.get(benchmark.name, frozenset())
    clean = _scores(benchmark, items, rows, {item["id"] for item in items} - found)
    dirty = _scores(benchmark, items, rows, {item["id"] for item in items} & found)
    scores: Scores = {}
    for key in sorted(clean | dirty):
        for part, of_part in (("clean", clean), ("dirty", dirty)):
            if key in of_part:
                scores[f"{key}:{part}"] = {**of_part[key], "kind": part}
        if key in clean and key in dirty:
            difference = difference_of_independent(_estimate(dirty[key]), _estimate(clean[key]))
            n = dirty[key]["n"] + clean[key]["n"]
            scores[f"{key}:dirty-clean"] = score_row(clean[key]["metric"], difference, n, None, "difference")
    return scores


def _scores(benchmark: Benchmark, items: list[Item], rows: list[Row], ids: set[str]) -> Scores:
    part = [row for row in rows if row["doc_id"] in ids]
    asked = [item for item in items if item["id"] in ids]
    return (benchmark.scores or scores_of)(benchmark, asked, part) if part else {}


def _estimate(row: dict[str, Any]) -> Estimate:
    return Estimate(*(float("nan") if row[name] is None else row[name] for name in Estimate._fields))
