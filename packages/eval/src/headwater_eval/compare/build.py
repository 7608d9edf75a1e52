"""The stage: any number of results, two by two, on the items that both have.

rows an item of every run -> the same items -> differences with intervals, flips, tests
-> comparison.json, index.html, report.md
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from .._contracts.errors import UsageError
from .._contracts.manifest import canonical_json, manifest_hash, write_atomic
from .._contracts.stage import Run
from ..report.render import html, markdown
from ..scores import score_row
from ..statistics import Estimate, clustered_mean, mean_of_independent, wilson
from . import page, paired
from .config import CompareConfig
from .runs import Results, Task, load, shared_tasks

Json = dict[str, Any]


def run(run: Run) -> None:
    """Compare `run.inputs` and fill `run.out` with comparison.json, index.html, report.md and metrics.json."""
    config: CompareConfig = run.config
    if len(run.inputs) < 2:
        raise UsageError("compare needs two results or more: --in base=DIR --in sft=DIR")
    names = [name for name in config.order if name in run.inputs]
    names += sorted(set(run.inputs) - set(names))
    runs = [load(name, run.inputs[name], config.by_category) for name in names]
    unknown = [task for task in config.by_category if not any(task in r.rows for r in runs)]
    if unknown:
        raise UsageError(f"by_category: {unknown[0]} is in none of the results")
    tasks, remarks = shared_tasks(runs, config.tasks, refuse=config.items == "same")
    found: Json = {
        "runs": {r.name: {"results": manifest_hash(run.inputs[r.name]), "parameters": r.parameters} for r in runs},
        "tasks": {task.name: describe(task, runs) for task in tasks},
        "pairs": [compare_pair(before, after, tasks, config) for before, after in chosen_pairs(names, config)],
        "remarks": remarks,
    }
    write_atomic(run.out / "comparison.json", canonical_json(found))
    told, sections = page.subtitle(found), page.sections(found)
    write_atomic(run.out / "index.html", html(config.title, told, sections))
    write_atomic(run.out / "report.md", markdown(config.title, told, sections))
    run.write_metrics(
        {"artefacts": len(runs), "chapters": len(sections), "shortfalls": len(remarks), "tasks": len(tasks),
         "pairs": {f"{p['before']}-{p['after']}": _counts(p) for p in found["pairs"]}}
    )  # fmt: skip
    for remark in remarks:
        run.log(remark)
    for pair in found["pairs"]:
        for line in page.lines(pair):
            run.log(line)


def chosen_pairs(names: list[str], config: CompareConfig) -> list[tuple[str, str]]:
    """Every pair in the runs' order, or each run with the first."""
    return [pair for pair in combinations(names, 2) if config.pairs == "all" or pair[0] == names[0]]


def describe(task: Task, runs: list[Results]) -> Json:
    """One task: its common items, and the score of each run on them with its 95% interval."""
    chances = [r.metrics[task.name].get("chance") for r in runs if task.name in r.metrics]
    return {
        "metric": task.metric, "kind": task.kind, "n": len(task.ids), "clusters": len(set(task.clusters)),
        "chance": chances[0] if chances else None, "left_out": task.left_out, "other_prompts": task.other_prompts,
        "scores": {name: _numbers(task, _score(task, name)) for name in task.scores},
    }  # fmt: skip


def _score(task: Task, name: str) -> Estimate:
    values = task.scores[name]
    if task.binary and not task.clustered:
        return wilson(int(values.sum()), len(values))
    return clustered_mean(values, task.clusters)


def _numbers(task: Task, estimate: Estimate) -> Json:
    row = score_row(task.metric, estimate, len(task.ids), None, task.kind)
    return {key: row[key] for key in ("value", "stderr", "low", "high", "n")}


def compare_pair(before: str, after: str, tasks: list[Task], config: CompareConfig) -> Json:
    """Two runs on every task that both have.

    McNemar's exact test where an item scores 0 or 1 and stands alone; where items have other scores or share passages,
    the permutation test, which swaps clusters. Holm's correction is over the tasks of the pair.
    """
    both = [task for task in tasks if before in task.scores and after in task.scores]
    rows: dict[str, Json] = {}
    estimates: dict[str, Estimate] = {}
    for task in both:
        old, new = task.scores[before], task.scores[after]
        estimates[task.name] = paired.difference(old, new, task.clusters, config.resamples, config.seed)
        up, down = int((new > old).sum()), int((new < old).sum())
        row = {"difference": _numbers(task, estimates[task.name]), "up": up, "down": down,
               "same": len(old) - up - down}  # fmt: skip
        if task.binary and not task.clustered:
            row |= {"test": "McNemar", "p": paired.mcnemar(up, down)}
        else:
            p = paired.sign_flip(old, new, task.clusters, config.resamples, config.seed)
            row |= {"test": "permutation", "p": p}
        rows[task.name] = row
    for row, adjusted in zip(rows.values(), paired.holm([row["p"] for row in rows.values()]), strict=True):
        row["p_holm"] = adjusted
    whole = [task for task in both if task.kind == "choice" and ":" not in task.name]
    choice = [task for task in whole if np.isfinite(estimates[task.name].stderr)]
    average = None
    if choice:
        mean = mean_of_independent([estimates[task.name] for task in choice])
        average = {**_numbers(choice[0], mean), "n": sum(len(t.ids) for t in choice), "tasks": [t.name for t in choice]}
    return {"before": before, "after": after, "tasks": rows, "average": average}


def _counts(pair: Json) -> Json:
    """How many tasks each way, by Holm's p-value below 0.05."""
    clear = [row for row in pair["tasks"].values() if row["p_holm"] < page.ALPHA]
    return {"tasks": len(pair["tasks"]), "higher": sum(r["difference"]["value"] > 0 for r in clear),
            "lower": sum(r["difference"]["value"] < 0 for r in clear)}  # fmt: skip
