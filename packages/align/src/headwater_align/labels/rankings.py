"""A ranking of one task by one labeller, and what makes it count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from .tasks import Task


@dataclass(frozen=True)
class Ranking:
    """What one labeller said of one task, or that they passed over it."""

    task: str
    labeller: str
    ranks: dict[str, Any]
    """Name of a response -> rank, 1 the best; ties share one."""
    file: str
    row: int
    """Place in the file, from 1."""
    confidence: Any = None
    """0 to 1, the labeller's own; None: not said."""
    comment: str = ""
    skipped: str = ""
    """Why the labeller passed over the task; empty: they did not."""
    at: str = ""
    """When, ISO 8601; empty: not known."""


@dataclass(frozen=True)
class Reject:
    """Something that is no ranking, and why."""

    file: str
    row: int
    task: str
    labeller: str
    reason: str


@dataclass
class Accepted:
    """What counts, and what does not."""

    rankings: list[Ranking] = field(default_factory=list)
    """One a task and labeller, ranks dense, in order of both; those skipped among them."""
    rejects: list[Reject] = field(default_factory=list)
    repeated: int = 0
    """The same said twice by one labeller, as when a file is handed in again."""
    replaced: int = 0
    """Rankings that the same labeller contradicted later; also among the rejects."""


def accepted(found: Iterable[Ranking | Reject], tasks: Mapping[str, Task]) -> Accepted:
    """Check rankings against the tasks; of two by one labeller the later counts, by time, else in the given order.

    Args:
        tasks: name -> task, of the sheet that was handed out.
    """
    made = Accepted()
    kept: dict[tuple[str, str], Ranking] = {}
    good: list[tuple[datetime, Ranking]] = []
    for entry in found:
        reason = entry.reason if isinstance(entry, Reject) else fault(entry, tasks)
        if reason:
            made.rejects.append(Reject(entry.file, entry.row, entry.task, entry.labeller, reason))
        elif isinstance(entry, Ranking):
            good.append((when(entry.at), _dense(entry)))
    for _, ranking in sorted(good, key=lambda entry: entry[0]):  # stable: the given order where times are equal
        at = ranking.task, ranking.labeller
        earlier = kept.get(at)
        if earlier is not None and _same(earlier, ranking):
            made.repeated += 1
        elif earlier is not None:
            made.replaced += 1
            told = f"said otherwise by the same labeller, later, in row {ranking.row} of {ranking.file}, which counts"
            made.rejects.append(Reject(earlier.file, earlier.row, *at, told))
        kept[at] = ranking
    made.rankings = [kept[at] for at in sorted(kept)]
    made.rejects.sort(key=lambda r: (r.file, r.row, r.task, r.labeller, r.reason))
    return made


def fault(ranking: Ranking, tasks: Mapping[str, Task]) -> str:
    """Why a ranking cannot count, free of document text; empty: it can."""
    task = tasks.get(ranking.task)
    if task is None:
        return "no task of this sheet; import it with the sheet that it came from"
    if not ranking.labeller.strip():
        return "no labeller"
    if ranking.skipped:
        return ""
    unknown = set(ranking.ranks) - set(task.names)
    if unknown:
        return "ranks a response that the task has not"
    if len(ranking.ranks) < len(task.names):
        return f"ranks {len(ranking.ranks)} of {len(task.names)} responses"
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1 for rank in ranking.ranks.values()):
        return "a rank that is no whole number from 1"
    sure = ranking.confidence
    if sure is not None and not (isinstance(sure, int | float) and not isinstance(sure, bool) and 0 <= sure <= 1):
        return "a confidence that is no number from 0 to 1"
    return ""


def when(at: str) -> datetime:
    """A time in ISO 8601, in UTC where it names no zone; the earliest of all where it is none."""
    try:
        told = datetime.fromisoformat(at)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def number(text: object) -> object:
    """A number that a file holds as text; what it is otherwise, as it stands."""
    if not isinstance(text, str):
        return text
    try:
        value = float(text)
    except ValueError:
        return text
    return text if not math.isfinite(value) else int(value) if value == int(value) else value


def _dense(ranking: Ranking) -> Ranking:
    """Ranks without gaps: 1, 3, 3 says what 1, 2, 2 says."""
    order = sorted(set(ranking.ranks.values())) if not ranking.skipped else []
    ranks = {} if ranking.skipped else {name: order.index(rank) + 1 for name, rank in sorted(ranking.ranks.items())}
    return Ranking(**{**asdict(ranking), "ranks": ranks, "labeller": ranking.labeller.strip()})


def _same(one: Ranking, other: Ranking) -> bool:
    said = ("ranks", "confidence", "comment", "skipped")
    return all(getattr(one, name) == getattr(other, name) for name in said)
