"""Which nodes a run should do without: the judgement on what `nodes` measured. Pure, and without torch.

Absolute faults (a wrong sum, a full disk) speak for themselves. A speed is compared with the median of the *other*
nodes, so that a slow node cannot excuse itself, and with the device's own figure where that is known.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._contracts.errors import UserError

SPEEDS = {
    "matmul": ("TFLOP/s", 0.85),
    "memory": ("GB/s", 0.75),
    "link": ("GB/s", 0.6),
    "disk_write": ("GB/s", 0.3),
    "disk_read": ("GB/s", 0.3),
}
"""Speed -> unit, and the share of the others' median below which a node is cordoned. Products of matrices on sound
nodes of one kind lie within a few percent; links and disks are shared with others and scatter more."""

Report = Mapping[str, Any]
"""One rank's measurements: "node", "rank", each of `SPEEDS` or None, "clock_s", "faults"."""


@dataclass(frozen=True)
class Limits:
    """What is asked of every node beside being like the others."""

    matmul: float | None = None
    """TFLOP/s at least; None: not known."""
    clock_s: float = 0.5
    """Clock against rank 0's, at most."""


def judge(reports: Sequence[Report], limits: Limits) -> dict[str, list[str]]:
    """Node -> why it should not be used; an empty list for a good one."""
    by_node: dict[str, list[Report]] = {}
    for report in reports:
        by_node.setdefault(report["node"], []).append(report)
    figures = {node: slowest(ranks) for node, ranks in by_node.items()}
    return {node: list(_reasons(node, ranks, figures, limits)) for node, ranks in sorted(by_node.items())}


def slowest(reports: Sequence[Report]) -> dict[str, float]:
    """A node is as fast as its slowest rank."""
    found = {}
    for speed in SPEEDS:
        values = [report[speed] for report in reports if report.get(speed) is not None]
        if values:
            found[speed] = min(values)
    return found


def _reasons(
    node: str, reports: Sequence[Report], figures: Mapping[str, Mapping[str, float]], limits: Limits
) -> Iterator[str]:
    for report in reports:
        for fault in report["faults"]:
            yield f"rank {report['rank']}: {fault}"
        if report["clock_s"] is not None and abs(report["clock_s"]) > limits.clock_s:
            yield f"clock is {report['clock_s']:+.3f} s off"
    for speed, value in figures[node].items():
        unit, share = SPEEDS[speed]
        others = [figure[speed] for other, figure in figures.items() if other != node and speed in figure]
        usual = statistics.median(others) if others else 0.0
        name = speed.replace("_", " ")
        if value < share * usual:
            yield f"{name} {value:.3g} {unit}, the other nodes {usual:.3g}"
        if speed == "matmul" and limits.matmul is not None and value < limits.matmul:
            yield f"{name} {value:.3g} {unit}, below {limits.matmul:.3g} for this device"


def update(path: Path, found: Mapping[str, list[str]]) -> dict[str, Any]:
    """The node list with this check's findings: a node that was not looked at stays as it was listed.

    Raises:
        UserError: a file is there that is no node list.
    """
    cordoned: dict[str, list[str]] = {}
    if path.exists():
        try:
            cordoned = {entry["node"]: list(entry["reasons"]) for entry in json.loads(path.read_text())["cordoned"]}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: no node list of check-nodes; remove it, or name another with --out") from None
    cordoned = {node: reasons for node, reasons in {**cordoned, **found}.items() if reasons}
    return {
        "good": sorted(node for node, reasons in found.items() if not reasons),
        "cordoned": [{"node": node, "reasons": reasons} for node, reasons in sorted(cordoned.items())],
    }


def pairings(count: int, rounds: int) -> list[list[tuple[int, int]]]:
    """Rounds of a tournament (circle method): each meets at most one other a round, and never the same twice.

    Returns:
        At most `rounds` rounds, fewer where `count` allows no more.
    """
    seats = [*range(count), *([None] if count % 2 else [])]
    found = []
    for _ in range(min(rounds, max(0, len(seats) - 1))):
        half = len(seats) // 2
        pairs = zip(seats[:half], reversed(seats[half:]), strict=True)
        found.append([(min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found
