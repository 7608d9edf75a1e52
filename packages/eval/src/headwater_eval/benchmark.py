"""What a benchmark is: one entry of the catalogue, and how its items become a task, rows and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import readers

Item = dict[str, Any]
"""One item of the items artefact: contracts/schemas/items.md."""
Row = dict[str, Any]
"""What a model made of one item, with the columns of `samples.SCHEMA`."""
Scores = dict[str, dict[str, Any]]
"""TASK, TASK:METRIC or TASK:PART -> a row of metrics.json: contracts/schemas/results.md."""


@dataclass(frozen=True)
class Benchmark:
    """One task.

    Its prompt and metrics are lm-eval's own where `stock` names a file of it, else those of `own`; a task with neither
    is plain multiple choice (`tasks.choice_config`).
    """

    name: str
    """lm-eval's name of it, where lm-eval has it."""
    measures: str
    file: str
    """How the path of its file ends, inside any source."""
    read: Callable[[Path], readers.Rows]
    metric: str
    """The headline metric; the others stand beside it."""
    kind: str = "choice"
    """choice (accuracy, against chance), bias (share of stereotyping preferences, against one half), text (what the
    model writes is compared with answers), code (what it writes is run), toxicity (what it writes is judged by a local
    classifier: `bias.judged`)."""
    stock: str = ""
    """lm-eval's YAML file, below its tasks folder."""
    to_stock: Callable[[Item], dict] | None = None
    """An item as the row that the stock file expects."""
    own: Callable[[], dict] | None = None
    """lm-eval's task config of our own definition, over the items themselves; see `tasks.own_task`."""
    rows: Callable[[Benchmark, list[Item], list[dict]], list[Row]] | None = None
    """Items and lm-eval's samples of them -> rows; None: that of the kind (`scores.sample_rows`)."""
    scores: Callable[[Benchmark, list[Item], list[Row]], Scores] | None = None
    """Items and rows -> scores; None: that of the kind (`scores.scores_of`)."""
    licence: str = ""
    """SPDX expression of the items, or what is known of it."""
    home: str = ""
    """Where the items come from: the authors' page or the hub's name."""


def chance(items: list[Item]) -> float | None:
    """Expected accuracy of a guess: the mean of one over the number of choices; None where answers are written."""
    if not items or any("choices" not in item for item in items):
        return None
    return round(sum(1 / len(item["choices"]) for item in items) / len(items), 6)
