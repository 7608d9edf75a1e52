"""The ablate command: what each part of a recipe is worth, by training without it, over seeds, with intervals.

    headwater-model ablate runs/ablate --tokens T --tokenizer T --parts parts.yaml --seeds 3

parts.yaml names what is replaced in each:

    no warm-up: {pretrain.schedule.warmup: 0.0}
    adamw: {pretrain.optimizer.kind: adamw}

Every part is trained with the seeds of the baseline (weights and data order), and compared with it seed by seed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from .._contracts import manifest as artefacts
from .._contracts.config import override, read_yaml
from .._contracts.errors import UsageError, UserError
from . import trial
from .chart import page, table

BASELINE = "baseline"


@dataclass(frozen=True)
class Row:
    """One part."""

    part: str
    bits: list[float]
    """Held-out bits per byte, by seed."""
    differences: list[float]
    """To the baseline of the same seed; above 0: worse without the part."""
    interval: tuple[float, float]
    """Of the mean difference, 95%, Student's t over the seeds."""
    failed: str = ""

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if self.failed:
            return f"did not train: {self.failed}"
        if self.part == BASELINE:
            return ""
        low, high = self.interval
        return "worse" if low > 0 else "better" if high < 0 else "no difference shown"


def command(args: argparse.Namespace) -> None:
    """Run all parts with all seeds, write table.csv and ablation.html, print the table."""
    if args.seeds < 2:
        raise UsageError("--seeds: an interval needs two seeds at least")
    parts = read_parts(args.parts)
    sets = override({}, args.set)
    trial.begin(
        args.study, "ablate", {"tokens": args.tokens, "tokenizer": args.tokenizer},
        {"parts": parts, "seeds": args.seeds, "set": sets},
    )  # fmt: skip
    results = trial.run_all(args.study, trials(parts, args.seeds, sets), args.workers, print)
    rows = compare(results)
    write(args.study, rows)
    print(report(rows))


def read_parts(path: Path) -> dict[str, dict[str, Any]]:
    """Part -> {dotted key: value}.

    Raises:
        UsageError: no mapping of mappings, or a key that is neither of plan nor of pretrain.
    """
    parts = read_yaml(path)
    for part, values in parts.items():
        if part == BASELINE or not isinstance(values, dict) or not values:
            raise UsageError(f"{path}: {part}: give the keys to set instead, and another name than {BASELINE}")
        for key in values:
            if key.partition(".")[0] not in ("plan", "pretrain"):
                raise UsageError(f"{path}: {part}: {key}: write plan.KEY or pretrain.KEY")
    if not parts:
        raise UsageError(f"{path}: names no part")
    return parts


def trials(parts: dict[str, dict[str, Any]], seeds: int, sets: dict[str, Any]) -> list[trial.Trial]:
    """The baseline and every part, each with every seed."""
    found = []
    for part, values in {BASELINE: {}, **parts}.items():
        for seed in range(1, seeds + 1):
            merged = override(sets, [f"pretrain.seed={seed}"])
            for key, value in values.items():
                merged = override(merged, [f"{key}={json.dumps(value)}"])
            name = f"{re.sub(r'[^A-Za-z0-9]+', '-', part).strip('-')}-{seed}"
            found.append(trial.Trial(name, merged.get("plan", {}), merged["pretrain"], {"part": part, "seed": seed}))
    return found


def compare(results: Sequence[trial.Result]) -> list[Row]:
    """Each part against the baseline, the most harmful to leave out first.

    Raises:
        UserError: the baseline itself did not train.
    """
    groups: dict[str, list[trial.Result]] = {}
    for result in results:
        groups.setdefault(result.trial.labels["part"], []).append(result)
    base = groups.pop(BASELINE)
    if broken := next((r.failed for r in base if r.failed), ""):
        raise UserError(f"the baseline did not train: {broken}")
    rows = [Row(BASELINE, [r.bits_per_byte for r in base], [], (0.0, 0.0))]
    for part, runs in groups.items():
        if broken := next((r.failed for r in runs if r.failed), ""):
            rows.append(Row(part, [], [], (0.0, 0.0), broken))
            continue
        differences = [run.bits_per_byte - at.bits_per_byte for run, at in zip(runs, base, strict=True)]
        rows.append(Row(part, [r.bits_per_byte for r in runs], differences, student(differences)))
    return [rows[0], *sorted(rows[1:], key=lambda row: -mean(row.differences) if row.differences else 0.0)]


def student(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of a few values."""
    try:
        from scipy.stats import t
    except ImportError:
        raise UserError("intervals need scipy: pip install 'headwater-model[studies]'") from None
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def write(study: Path, rows: Sequence[Row]) -> None:
    """table.csv and ablation.html."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "bits_per_byte", "difference", "low", "high", "verdict"])
    for row in rows:
        writer.writerow(_cells(row, 6))
    artefacts.write_atomic(study / "table.csv", text.getvalue())
    head = ["part", "bits per byte", "difference", "low", "high", ""]
    artefacts.write_atomic(study / "ablation.html", page("Ablations", table(head, [_cells(row, 4) for row in rows])))


def report(rows: Sequence[Row]) -> str:
    """The table as text."""
    width = max(len(row.part) for row in rows)
    lines = [f"{'part':{width}}  bits/byte  difference  95% interval"]
    for row in rows:
        if row.failed:
            lines.append(f"{row.part:{width}}  {row.verdict}")
        elif row.part == BASELINE:
            lines.append(f"{row.part:{width}}  {mean(row.bits):9.4f}")
        else:
            low, high = row.interval
            lines.append(
                f"{row.part:{width}}  {mean(row.bits):9.4f}  {mean(row.differences):+10.4f}  "
                f"[{low:+.4f}, {high:+.4f}]  {row.verdict}"
            )
    return "\n".join(lines)


def _cells(row: Row, digits: int) -> list[str]:
    bits = f"{mean(row.bits):.{digits}f}" if row.bits else ""
    if not row.differences:
        return [row.part, bits, "", "", "", row.verdict]
    numbers = (mean(row.differences), *row.interval)
    return [row.part, bits, *(f"{number:+.{digits}f}" for number in numbers), row.verdict]
