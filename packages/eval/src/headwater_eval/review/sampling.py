"""Which answers people see: a stratified draw, and who gets which."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .._contracts.errors import UserError
from ..benchmark import Row
from ..documents import seeded_rank
from .config import ReviewExportConfig

LEAST = 2
"""Answers of a stratum, where it has as many: one alone says nothing of the spread within."""


@dataclass(frozen=True)
class Unit:
    """One answer of one model to one item."""

    id: str
    """What reviewers see of its identity: nothing."""
    model: str
    task: str
    doc_id: str
    outcome: str
    """right, wrong, or ungraded."""
    confidence: str
    """confident, unsure, or empty where an answer was written."""
    category: str
    margin: float | None
    """Log-probability of the picked choice less that of the best other one, nats."""
    prompt: str
    options: tuple[str, ...]
    answer: str
    gold: str

    def stratum(self, config: ReviewExportConfig) -> tuple[str, ...]:
        """What it is drawn with."""
        confidence = self.confidence if config.by_confidence else ""
        return self.model, self.task, self.outcome, confidence, self.category if config.by_category else ""


@dataclass(frozen=True)
class Drawn:
    """A unit of the sample."""

    unit: Unit
    stratum: str
    population: int
    """Answers of its stratum, in the sample or not."""
    sampled: int
    reviewers: tuple[str, ...]


def units(model: str, rows: Iterable[Row], config: ReviewExportConfig) -> list[Unit]:
    """The answers of one results artefact that can be drawn.

    Args:
        rows: of samples.parquet.
    """
    chosen = [row for row in rows if _wanted(row, config.tasks)]
    margins = [margin(row) for row in chosen]
    middle: dict[str, list[float]] = defaultdict(list)
    for row, found in zip(chosen, margins, strict=True):
        if found is not None:
            middle[row["task"]].append(found)
    medians = {task: median(found) for task, found in middle.items()}
    made = []
    for row, found in zip(chosen, margins, strict=True):
        confident = "" if found is None else "confident" if found >= medians[row["task"]] else "unsure"
        options = tuple(row["choices"] or ())
        made.append(
            Unit(
                id=hashlib.sha256(f"{config.seed}/{model}/{row['task']}/{row['doc_id']}".encode()).hexdigest()[:12],
                model=model,
                task=row["task"],
                doc_id=row["doc_id"],
                outcome="ungraded" if row["correct"] is None else "right" if row["correct"] else "wrong",
                confidence=confident,
                category=row["category"] or "",
                margin=found,
                prompt=row["prompt"] or "",
                options=options,
                answer=_at(options, row["picked"]) if options else row["response"] or "",
                gold=_at(options, row["label"]) if options else " | ".join(row["answers"] or ()),
            )
        )
    return made


def margin(row: Row) -> float | None:
    """By how much the picked choice is likelier than the best other one, nats; None without two choices.

    Negative where the headline metric picks by length-normalised scores and the unnormalised ones disagree.
    """
    logprobs, picked = row["logprobs"], row["picked"]
    if not logprobs or len(logprobs) < 2 or picked is None:
        return None
    return float(logprobs[picked] - max(value for i, value in enumerate(logprobs) if i != picked))


def draw(population: Sequence[Unit], config: ReviewExportConfig) -> list[Drawn]:
    """The sample, in an order that tells nothing.

    Raises:
        UserError: nothing to draw from.
    """
    strata: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in population:
        strata[unit.stratum(config)].append(unit)
    sizes = allocate({key: len(held) for key, held in strata.items()}, config.weights, config.items)
    ordered: list[tuple[Unit, str, int, int]] = []
    for key in sorted(strata):
        held = sorted(strata[key], key=lambda u: seeded_rank(config.seed, u.id))
        ordered += [(u, " / ".join(p for p in key if p), len(held), sizes[key]) for u in held[: sizes[key]]]
    reviewers = assign([unit.id for unit, *_ in ordered], config)
    drawn = [Drawn(*row, reviewers[row[0].id]) for row in ordered]
    return sorted(drawn, key=lambda d: seeded_rank(config.seed, f"order {d.unit.id}"))


def allocate(
    sizes: Mapping[tuple[str, ...], int], weights: Mapping[str, float], items: int
) -> dict[tuple[str, ...], int]:
    """How many answers each stratum gives: `LEAST` at least, also where that is more than `items` in all, the rest by
    weight of its outcome, none beyond its size.

    Args:
        sizes: stratum (model, task, outcome, ...) -> answers in it.

    Raises:
        UserError: no answers.
    """
    if not sizes:
        raise UserError("no answer to review in these results; name other results, or other review-export.tasks")
    given = {key: min(LEAST, size) for key, size in sizes.items()}
    needed = sum(given.values())
    while needed < items:
        # The stratum that is furthest behind its weight gets the next one; ties go by name.
        open_ = [key for key, size in sizes.items() if given[key] < size]
        if not open_:
            break
        behind = min(open_, key=lambda key: ((given[key] + 0.5) / weights[key[2]], key))
        given[behind] += 1
        needed += 1
    return given


def assign(ids: Sequence[str], config: ReviewExportConfig) -> dict[str, tuple[str, ...]]:
    """Item -> its reviewers: one, or several for every so many-th in the given order, which spreads the overlap.

    The least busy reviewer is next, so that all get about the same number.
    """
    load = dict.fromkeys(config.reviewers, 0)
    found = {}
    for i, item in enumerate(ids):
        shared = int((i + 1) * config.overlap + 1e-9) > int(i * config.overlap + 1e-9)
        wanted = min(config.several if shared else 1, len(load))
        ranked = sorted(load, key=lambda name: (load[name], seeded_rank(config.seed, f"{item} {name}")))
        found[item] = tuple(sorted(ranked[:wanted]))
        for name in found[item]:
            load[name] += 1
    return found


def _wanted(row: Row, tasks: list[str] | None) -> bool:
    """Unless it is asked for, nothing that has choices of which none is right: pairs of sentences, shares of mass."""
    if tasks is not None:
        return row["task"] in tasks
    return row["direction"] is None and (not row["choices"] or row["correct"] is not None)


def _at(options: Sequence[str], index: int | None) -> str:
    return options[index] if index is not None and 0 <= index < len(options) else ""
