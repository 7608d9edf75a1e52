"""The lineage at scale smoke: what runs again after a change, and how long it takes, beside a script that
runs every stage each time (what a run script without lineage, such as nanochat's, does).

Three changes: nothing, one filter threshold (to the filter's own result, which is what the data engineer looks
at, and on to the report), one learning rate (to the report). Wall seconds, one thread a process, no network.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.frame import Row, lower_is_better, timed
from tests.conftest import copy_tree, environment, set_scale

THRESHOLD = ("filter", "rules", "gopher_short_doc", "threshold")


def run(quick: bool) -> list[Row]:
    """Time each change once (quick) or as the median of three; what runs for minutes, once."""
    repetitions = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder) / "headwater")
        set_scale(tree, "smoke")
        everything = _repro(tree)[0]
        rows = [
            _row(tree, "make with nothing changed", repetitions, everything, lambda i: None, ()),
            _row(tree, "one changed threshold, up to the filter's result", repetitions, everything,
                 lambda i: _change(tree, "params.yaml", THRESHOLD, 50 + 5 * i), ("filter",)),
            _row(tree, "one changed threshold, up to the report", 1, everything,
                 lambda i: _change(tree, "params.yaml", THRESHOLD, 50 + i), ()),
            _row(tree, "one changed learning rate, up to the report", 1, everything,
                 lambda i: _change(tree, "configs/smoke.yaml", ("plan", "lr"), 0.006 + i / 10_000), ()),
        ]  # fmt: skip
    return rows


def _row(tree, work, repetitions, everything, change, targets) -> Row:
    figures: list[float] = []
    ran: list[str] = []
    for i in range(1, repetitions + 1):
        change(i)
        seconds, ran = _repro(tree, *targets)
        figures.append(seconds)
    taken = "once" if repetitions == 1 else f"median of {repetitions}"
    how = f"dvc repro {' '.join(targets)}, scale smoke, {taken}; ran again: {', '.join(ran) or 'nothing'}"
    return lower_is_better(
        work, "s wall", statistics.median(figures), "every stage, by a script", "", everything, None, how
    )


def _repro(tree: Path, *targets: str) -> tuple[float, list[str]]:
    """Wall seconds of `dvc repro` and the stages that ran."""
    wall, _, printed = timed([str(Path(sys.executable).parent / "dvc"), "repro", *targets], tree, environment())
    return wall, [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]


def _change(tree: Path, file: str, path: tuple[str, ...], value: float) -> None:
    """Give one key of a params file another value."""
    values = yaml.safe_load((tree / file).read_text())
    node = values
    for part in path[:-1]:
        node = node.setdefault(part, {})
    node[path[-1]] = value
    (tree / file).write_text(yaml.safe_dump(values, sort_keys=False))
