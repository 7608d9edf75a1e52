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
    """How the path of a package's file ends, inside any source; empty: only the hub's format is known."""
    read: Callable[[Path], readers.Rows] | None
    """Reader of that file; None: it is in the hub's format, or the authors', for `parse`, or `hub_rows` reads it."""
    metric: str
    """The headline metric; the others stand beside it."""
    kind: str = "choice"
    """choice (accuracy, against chance), alignment (the same of what alignment is for, truth and harm; in no average
    over benchmarks), bias (share of stereotyping preferences, against one half), text (what the
    model writes is compared with answers), code (what it writes is run), toxicity (what it writes is judged by a local
    classifier: `bias.judged`)."""
    stock: str = ""
    """lm-eval's YAML file, below its tasks folder."""
    repair: dict[str, Any] | None = None
    """What lies over that file's config, where it fails as it stands: `repairs.REPAIRS`."""
    to_stock: Callable[[Item], dict] | None = None
    """An item as the row that the stock file expects."""
    hub_rows: Callable[[Path], readers.Rows] | None = None
    """Reader of that file that makes rows in the hub's format, of which the stock file then makes items."""
    guess: Callable[[Item], float] | None = None
    """What a guess scores on an item; None: one over its number of choices."""
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
    family: str = ""
    """What it is listed under, where many tasks are one benchmark (mmlu, arithmetic, bigbench, ...)."""
    suites: tuple[str, ...] = ()
    """Suites that hold it; every benchmark is in `full`."""
    shots: int = 0
    """Solved examples before each question, where a run asks for the usual number."""
    shots_from: str = ""
    """Who uses that number."""
    hub: str = ""
    """The hub's name of the data set, `OWNER/NAME`."""
    hub_config: str = ""
    split: str = ""
    """The split that is asked."""
    shots_split: str = ""
    """The split that shots come from; empty: the one that is asked."""
    parse: Callable[[dict], list[dict]] | None = None
    """A row of the hub -> fields of the items in it; None: `hub.stock_fields`, from the stock definition."""
    words: tuple[str, ...] = ()
    """Columns of a hub row which, with the right answer, must not stand in training text; no row may lack them."""
    cluster: str = ""
    """Column whose equal values make items one cluster: a passage."""
    category: str = ""
    """Column that scores are given apart by."""
    shots_within: str = ""
    """Column of which shots have the tested row's value (MMLU: subject)."""


def chance(benchmark: Benchmark, items: list[Item]) -> float | None:
    """Expected score of a guess, the mean over items; None where answers are written."""
    if not items or any("choices" not in item for item in items):
        return None
    guess = benchmark.guess or (lambda item: 1 / len(item["choices"]))
    return round(sum(map(guess, items)) / len(items), 6)
