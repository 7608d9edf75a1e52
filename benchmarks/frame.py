"""What a benchmark is made of: rows, a fair way to time two commands, a table and a results file."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One work item, ours beside the peer's, from one run on one machine."""

    work: str
    unit: str
    """Unit of `ours` and `peer_figure`."""
    ours: float
    peer: str
    peer_version: str
    peer_figure: float
    ratio: float
    """Above 1: ours is better, whatever the unit."""
    target: float | None
    """The ratio aimed at; None where the row only informs."""
    how: str
    """Input, repetitions, threads: enough to repeat it."""


def lower_is_better(work, unit, ours, peer, peer_version, peer_figure, target, how) -> Row:
    """A row whose unit is a cost (seconds, megabytes)."""
    return Row(
        work, unit, round(ours, 3), peer, peer_version, round(peer_figure, 3), round(peer_figure / ours, 2), target, how
    )


def higher_is_better(work, unit, ours, peer, peer_version, peer_figure, target, how) -> Row:
    """A row whose unit is a rate (documents a second)."""
    return Row(
        work, unit, round(ours, 3), peer, peer_version, round(peer_figure, 3), round(ours / peer_figure, 2), target, how
    )


def alternate(a: Callable[[], object], b: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median CPU seconds of `a` and of `b`, run A B A B so that a drift of the machine hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        for function, list_of_times in zip((a, b), times, strict=True):
            before = cpu_seconds()
            function()
            list_of_times.append(cpu_seconds() - before)
    return statistics.median(times[0]), statistics.median(times[1])


def cpu_seconds() -> float:
    """User plus system seconds of this process and its finished children."""
    spent = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        spent += usage.ru_utime + usage.ru_stime
    return spent


def timed(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Run a command; wall seconds, CPU seconds (children included) and what it printed. Raises if it fails."""
    cpu, wall = cpu_seconds(), time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return wall, cpu, done.stdout


def table(rows: list[Row]) -> str:
    """The rows as an aligned text table."""
    head = ["work", "unit", "ours", "peer", "figure", "ratio", "target"]
    body = [
        [r.work, r.unit, f"{r.ours:g}", f"{r.peer} {r.peer_version}".strip(), f"{r.peer_figure:g}", f"{r.ratio:g}",
         "" if r.target is None else f"{r.target:g}"]
        for r in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *body]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write(path: Path, rows: list[Row]) -> Path:
    """Write the rows as JSON, with the machine that they come from."""
    machine = {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return path


def _processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return names[0].partition(": ")[2]
    except (OSError, IndexError):
        return platform.processor()
