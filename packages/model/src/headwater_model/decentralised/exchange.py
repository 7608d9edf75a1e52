"""What was exchanged and how stale it was, over several steps and over a run: for the curve and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BYTES = ("communicated_bytes", "synchronous_bytes")


def of_steps(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What `LocalTrainer.step` or `ParameterServer.step` gave at several steps, as one row; nothing of other trainers.

    Returns:
        communicated_bytes and synchronous_bytes, summed; of a server also staleness, the mean, and staleness_max.
    """
    if "communicated_bytes" not in rows[0]:
        return {}
    found = {name: sum(row[name] for row in rows) for name in BYTES}
    if "staleness" in rows[0]:
        stale = [row["staleness"] for row in rows]
        found |= {"staleness": sum(stale) / len(stale), "staleness_max": max(stale)}
    return found


def of_run(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The same over a whole run.

    Args:
        rows: training rows of the curve, in order, each with `of_steps` of the steps since the one before.
    """
    if "communicated_bytes" not in rows[0]:
        return {}
    found = {name: sum(row[name] for row in rows) for name in BYTES}
    if "staleness" in rows[0]:
        ends = [row["step"] for row in rows]
        summed = sum(row["staleness"] * (end - start) for row, start, end in zip(rows, [0, *ends], ends, strict=False))
        found |= {"staleness": summed / ends[-1], "staleness_max": max(row["staleness_max"] for row in rows)}
    return found
