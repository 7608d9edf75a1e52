"""`review import`: judgements in, failure classes with shares, agreement and examples out."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..report.render import escaped, fenced
from ..report.units import cut, percent
from ..statistics import Estimate
from .agreement import alpha, alpha_with_interval, counts, percent_agreement
from .answers import Answer, accepted, read
from .config import FINE, ReviewImportConfig
from .export import CLASSES, KEY
from .shares import Stratum, weighted_share

Key = dict[str, dict[str, Any]]
"""Item -> its row of key.parquet."""


def findings(run: Run) -> None:
    """Fill `run.out` with answers.jsonl, rejects.jsonl, review.json, review.md and metrics.json."""
    config: ReviewImportConfig = run.config
    if not config.files:
        raise UserError("no files to import; name what the reviewers saved after `review import`")
    folder = run.inputs["sheet"]
    key: Key = {row["item"]: row for row in pq.read_table(folder / KEY).to_pylist()}
    classes = {**json.loads((folder / CLASSES).read_text("utf-8")), **config.classes}
    found = [entry for name in config.files for entry in read(Path(name))]
    answers, rejects = accepted(found, set(key), list(classes))
    if not answers:
        reason = f"; the first row that was refused: {rejects[0].reason}" if rejects else ""
        raise UserError(f"{', '.join(config.contents)}: no judgement of this sample{reason}")
    told = summary(key, answers, list(classes), config)
    _write_lines(run.out / "answers.jsonl", [{**asdict(a), **_whose(key[a.item])} for a in answers])
    _write_lines(run.out / "rejects.jsonl", [reject.as_dict() for reject in rejects])
    write_atomic(run.out / "review.json", canonical_json({**told, "classes": classes, "rejects": len(rejects)}))
    write_atomic(run.out / "review.md", markdown(told, classes, key, answers, config))
    write_atomic(run.out / "metrics.json", canonical_json({**metrics(told), "rejects": len(rejects)}))
    a = told["agreement"]
    run.log(f"{told['answers']} judgements of {told['items']} answers by {len(told['by_reviewer'])} reviewers")
    run.log(f"{len(rejects)} refused (rejects.jsonl)")
    run.log("alpha: " + (f"{a['alpha']:.3f} on {a['items']} answers" if a["alpha"] is not None else a["why"]))


def summary(key: Key, answers: Sequence[Answer], classes: list[str], config: ReviewImportConfig) -> dict[str, Any]:
    """Agreement, and the shares of the classes over all answers, those of each model, and of each model and task.

    Shares of several models or tasks count each answer of the population once.
    """
    said: dict[str, list[str]] = defaultdict(list)
    for answer in answers:
        said[answer.item].append(answer.label)
    models = sorted({key[item]["model"] for item in said})
    tasks = sorted({(key[item]["model"], key[item]["task"]) for item in said})
    return {
        "answers": len(answers),
        "items": len(said),
        "drawn": len(key),
        "by_reviewer": dict(sorted(Counter(a.reviewer for a in answers).items())),
        "agreement": agreement([said[item] for item in sorted(said)], classes, config),
        "all": shares(key, said, classes),
        "by_model": {m: shares(_part(key, model=m), said, classes) for m in models},
        "by_task": {f"{m}/{t}": shares(_part(key, model=m, task=t), said, classes) for m, t in tasks},
    }


def agreement(labels: list[list[str]], classes: list[str], config: ReviewImportConfig) -> dict[str, Any]:
    """Alpha over all classes, and of each class against all others: which definitions reviewers read alike."""
    table, names = counts(labels)
    estimate = alpha_with_interval(table, config.resamples, config.seed)
    shared = int((table.sum(1) >= 2).sum())
    why = None
    if math.isnan(estimate.value):
        why = "all judgements are the same class" if shared else "no answer was judged by two reviewers"
    by_class = {}
    for name in classes:
        if name in names:
            column = table[:, names.index(name)]
            by_class[name] = _number(alpha(np.stack([column, table.sum(1) - column], 1)))
    return {
        "alpha": _number(estimate.value),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
        "items": shared,
        "percent": _number(percent_agreement(table)),
        "by_class": by_class,
        "why": why,
    }


def shares(key: Key, said: dict[str, list[str]], classes: list[str]) -> dict[str, Any]:
    """Of each class: the share of all answers (drawn or not) that have it, its interval, and how often it was named.

    Args:
        key: the part of the sample to speak of.
        said: item -> the classes that its reviewers named.
    """
    strata: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    size: dict[tuple[str, str, str], int] = {}
    for item, row in sorted(key.items()):
        stratum = row["model"], row["task"], row["stratum"]
        size[stratum] = row["population"]
        if item in said:
            strata[stratum].append(item)
    covered = sum(size[stratum] for stratum in strata)

    def estimate(names: set[str]) -> Estimate:
        values = {s: np.array([np.mean([label in names for label in said[i]]) for i in at]) for s, at in strata.items()}
        return weighted_share([Stratum(size[s], v) for s, v in values.items()])

    reviewed = [item for at in strata.values() for item in at]
    rows = {}
    for name in classes:
        named = sum(name in said[item] for item in reviewed)
        if named:
            rows[name] = {**_row(estimate({name}), len(reviewed)), "count": named}
    failures = _row(estimate(set(classes) - {FINE}), len(reviewed))
    return {
        "reviewed": len(reviewed),
        "population": sum(size.values()),
        "covered": covered / sum(size.values()),
        "failures": {**failures, "count": sum(any(label != FINE for label in said[item]) for item in reviewed)},
        "classes": rows,
    }


def metrics(told: dict[str, Any]) -> dict[str, Any]:
    """The figures that DVC compares and the model card prints."""
    return {
        "answers": told["answers"],
        "items": told["items"],
        "agreement": {name: told["agreement"][name] for name in ("alpha", "low", "high", "items", "percent")},
        "failures": told["all"]["failures"],
        "by_class": told["all"]["classes"],
        "by_task": {name: part["failures"] for name, part in told["by_task"].items()},
    }


def markdown(
    told: dict[str, Any], classes: dict[str, str], key: Key, answers: Sequence[Answer], config: ReviewImportConfig
) -> str:
    """The same for people, with examples of each class."""
    a = told["agreement"]
    parts = ["# Human review", f"{told['answers']} judgements of {told['items']} answers, {told['drawn']} drawn."]
    if a["alpha"] is None:
        parts.append(f"Agreement cannot be told: {a['why']}.")
    else:
        between = f" [{a['low']:.3f}, {a['high']:.3f}]" if a["low"] is not None else ""
        parts.append(
            f"Agreement: Krippendorff's alpha {a['alpha']:.3f}{between} on {a['items']} answers that several "
            f"reviewers judged; they said the same in {percent(a['percent'])} of pairs."
        )
    parts.append(
        "Shares speak for all answers of the results, not only for those drawn; intervals are 95%. An answer that "
        "several reviewers judged counts for each class by the share of them who named it."
    )
    parts += ["## All answers", _table(told["all"], a["by_class"])]
    for section in ("by_model", "by_task"):
        for name, part in told[section].items():
            parts += [f"## {escaped(name)}", _table(part, {})]
    parts += ["## Examples", *_examples(key, answers, classes, config)]
    parts += ["## Classes", "\n".join(f"- **{escaped(n)}**: {escaped(told_)}" for n, told_ in classes.items())]
    return "\n\n".join(parts) + "\n"


def _table(part: dict[str, Any], alphas: dict[str, float | None]) -> str:
    lines = [f"{part['reviewed']} of {part['population']} answers reviewed"
             + ("" if part["covered"] == 1 else f"; strata with {percent(part['covered'])} of them") + ".", "",
             "| class | share | 95% interval | answers |" + (" alpha |" if alphas else ""),
             "| --- | ---: | ---: | ---: |" + (" ---: |" if alphas else "")]  # fmt: skip
    ranked = sorted(part["classes"].items(), key=lambda entry: (entry[0] == FINE, -entry[1]["value"], entry[0]))
    for name, row in [("any failure", part["failures"]), *ranked]:
        shown = f"{percent(row['low'])} to {percent(row['high'])}"
        line = f"| {escaped(name)} | {percent(row['value'])} | {shown} | {row['count']} |"
        value = alphas.get(name)
        lines.append(line + (f" {value:.2f} |" if value is not None else " |" if alphas else ""))
    return "\n".join(lines)


def _examples(key: Key, answers: Sequence[Answer], classes: dict[str, str], config: ReviewImportConfig) -> list[str]:
    parts = []
    for name in classes:
        if name == FINE:
            continue
        of_task: dict[str, list[Answer]] = defaultdict(list)
        for answer in answers:
            of_task[key[answer.item]["task"]] += [answer] if answer.label == name else []
        for task in sorted(of_task):
            for answer in of_task[task][: config.examples]:
                row = key[answer.item]
                shown = "\n".join(
                    [cut(row["prompt"], config.example_characters),
                     f"--> {cut(row['answer'], config.example_characters)}",
                     f"expected: {cut(row['gold'], config.example_characters)}"]
                    + ([f"corrected: {cut(answer.corrected, config.example_characters)}"] if answer.corrected else [])
                )  # fmt: skip
                about = f"**{escaped(name)}**, {escaped(row['model'])} on {escaped(task)}"
                parts += [about + (f": {escaped(answer.comment)}" if answer.comment else ""), fenced(shown)]
    return parts or ["None: no failure was found."]


def _part(key: Key, **wanted: str) -> Key:
    return {item: row for item, row in key.items() if all(row[name] == value for name, value in wanted.items())}


def _whose(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("model", "task", "doc_id", "outcome")}


def _row(estimate: Estimate, n: int) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": n}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_lines(path: Path, rows: list[dict]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
