"""Results artefacts as runs over the same items: read, checked against each other, cut to the items of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import samples
from .._contracts.errors import UserError
from ..benchmark import Row, Scores

SAME = ("choices", "label", "answers")
"""What makes an item the same item, beside its id."""


@dataclass(frozen=True)
class Results:
    """One run."""

    name: str
    rows: dict[str, dict[str, Row]]
    """Task -> item id -> row; only items with a score."""
    metrics: Scores
    parameters: int | None
    """Of the model, where the results say it."""


@dataclass(frozen=True)
class Task:
    """One task's items that all runs have, in the order of their ids."""

    name: str
    metric: str
    kind: str
    ids: list[str]
    clusters: list[str]
    """Of each item; its own id where it stands alone."""
    scores: dict[str, np.ndarray]
    """Run -> float [n], the headline metric of each item."""
    left_out: dict[str, int]
    """Run -> how many of its items another run lacks."""
    other_prompts: int
    """Items that the runs did not ask in the same words."""

    @property
    def binary(self) -> bool:
        """Whether every item scores 0 or 1 in every run."""
        return all(np.isin(values, (0.0, 1.0)).all() for values in self.scores.values())

    @property
    def clustered(self) -> bool:
        """Whether items share passages."""
        return len(set(self.clusters)) < len(self.clusters)


def load(name: str, folder: Path, by_category: Sequence[str] = ()) -> Results:
    """One results artefact.

    Args:
        by_category: tasks whose categories are tasks too, TASK:CATEGORY.

    Raises:
        UserError: it has no rows an item (a compressor's result), or two rows of one item.
    """
    if not (folder / samples.NAME).is_file():
        raise UserError(f"{folder}: no {samples.NAME}, so {name} has no items to compare; leave it out")
    rows: dict[str, dict[str, Row]] = {}
    for row in samples.read(folder):
        if row["score"] is None:
            continue
        parts = [row["task"]]
        if row["task"] in by_category and row["category"]:
            parts.append(f"{row['task']}:{row['category']}")
        for part in parts:
            of_task = rows.setdefault(part, {})
            if row["doc_id"] in of_task:
                raise UserError(f"{folder / samples.NAME}: {row['doc_id']} of {part} twice; make the results again")
            of_task[row["doc_id"]] = row
    about = json.loads((folder / "results.json").read_text()) if (folder / "results.json").is_file() else {}
    return Results(
        name, rows, json.loads((folder / "metrics.json").read_text()), about.get("model", {}).get("parameters")
    )


def shared_tasks(runs: Sequence[Results], wanted: list[str] | None, refuse: bool) -> tuple[list[Task], list[str]]:
    """The tasks that two runs or more have, on the items that all of these have.

    Args:
        wanted: tasks by name; None: all.
        refuse: whether item sets that differ are an error.

    Returns:
        the tasks by name, and a sentence on each task that can't be compared.

    Raises:
        UserError: a wanted task is in no two runs; an item is not the same in two runs; item sets differ.
    """
    names = sorted({task for run in runs for task in run.rows} if wanted is None else wanted)
    tasks, remarks = [], []
    for name in names:
        having = [run for run in runs if name in run.rows]
        if len(having) < 2:
            if wanted is not None:
                raise UserError(f"{name}: fewer than two of the runs have it; leave it out of compare-runs.tasks")
            remarks.append(f"{name}: only {having[0].name} has it.")
            continue
        common = sorted(set.intersection(*(set(run.rows[name]) for run in having)))
        left_out = {run.name: len(run.rows[name]) - len(common) for run in having}
        if refuse and any(left_out.values()):
            told = ", ".join(f"{run.name} {len(run.rows[name])}" for run in having)
            raise UserError(f"{name}: the runs have other items ({told}, {len(common)} in common); set items=common")
        if not common:
            remarks.append(f"{name}: the runs have no item in common.")
            continue
        tasks.append(_task(name, having, common, left_out))
    return tasks, remarks


def _task(name: str, runs: list[Results], ids: list[str], left_out: dict[str, int]) -> Task:
    first = [runs[0].rows[name][i] for i in ids]
    other_prompts: set[str] = set()
    for run in runs[1:]:
        for row, own in zip(first, (run.rows[name][i] for i in ids), strict=True):
            if any(row[field] != own[field] for field in SAME):
                raise UserError(
                    f"{own['doc_id']} of {name}: not the same item in {runs[0].name} and {run.name}; "
                    "evaluate both on the same items artefact"
                )
            if row["prompt"] != own["prompt"]:
                other_prompts.add(own["doc_id"])
    about = next((run.metrics[name] for run in runs if name in run.metrics), {})
    return Task(
        name, about.get("metric", "score"), about.get("kind", ""), ids,
        [row["cluster"] or row["doc_id"] for row in first],
        {run.name: np.array([run.rows[name][i]["score"] for i in ids], float) for run in runs},
        left_out, len(other_prompts),
    )  # fmt: skip
