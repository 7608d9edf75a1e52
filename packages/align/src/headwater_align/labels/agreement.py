"""How far labellers agree on rankings: the share of pairs of responses, and Krippendorff's alpha for ordinal data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

Rankings = Mapping[str, Mapping[str, Sequence[int]]]
"""Task -> labeller -> rank of each response, in one order for all."""


def pair_counts(rankings: Rankings, labeller: str | None = None) -> np.ndarray:
    """What every two labellers of a task said of every two of its responses, int64 [tasks, 4], a row a task.

    Columns: pairs; pairs of which both said the same (which is better, or that neither is); pairs that both decided;
    of these, the pairs that both decided alike.

    Args:
        labeller: count only what they and another said; None: all.
    """
    rows = []
    for _, of_task in sorted(rankings.items()):
        row = np.zeros(4, np.int64)
        for one, other in combinations(sorted(of_task), 2):
            if labeller is None or labeller in (one, other):
                first, second = _signs(of_task[one]), _signs(of_task[other])
                both = (first != 0) & (second != 0)
                alike = first == second
                row += np.array([len(first), alike.sum(), both.sum(), (alike & both).sum()])
        rows.append(row)
    return np.array(rows, np.int64).reshape(-1, 4)


def _signs(ranks: Sequence[int]) -> np.ndarray:
    return np.array([np.sign(b - a) for a, b in combinations(ranks, 2)], np.int64)


def midranks(ranks: Sequence[int]) -> list[float]:
    """Each rank as a place between 0 and 1, ties at the mean of the places they share: (midrank - 1/2) / K.

    It compares tasks with different numbers of responses, and ties with what they stand for.
    """
    below = [sum(other < rank for other in ranks) for rank in ranks]
    same = [sum(other == rank for other in ranks) for rank in ranks]
    return [(b + s / 2) / len(ranks) for b, s in zip(below, same, strict=True)]


def coincidences(units: Sequence[Sequence[float]], values: Sequence[float]) -> np.ndarray:
    """How often two coders gave one unit the values c and k, float64 [V, V], pairs weighted by 1 / (coders - 1).

    Args:
        units: of each unit, the values that coders gave it. One with fewer than two says nothing and is left out.
        values: all that occur, ascending.
    """
    table = np.array([[unit.count(value) for value in values] for unit in map(list, units) if len(unit) >= 2], float)
    table = table.reshape(-1, len(values))
    weighted = table / (table.sum(1, keepdims=True) - 1)
    return table.T @ weighted - np.diag(weighted.sum(0))


def ordinal_alpha(observed: np.ndarray) -> float:
    """Krippendorff's alpha for ordinal data from coincidences [V, V], any number of coders, missing values allowed.

    1 - D_observed / D_expected, with the distance of two values c and k (sum of n_g for g from c to k, less
    (n_c + n_k) / 2) squared, n_g being how often value g was given. 1: agreement on everything; 0: what chance would
    give. Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, sections E and F.

    Returns:
        nan where nothing was compared or all values are the same (0 / 0).
    """
    given = observed.sum(0)
    if given.sum() < 2:
        return math.nan
    chance = (np.outer(given, given) - np.diag(given)) / (given.sum() - 1)
    middle = np.cumsum(given) - given / 2
    distance = (middle[:, None] - middle[None, :]) ** 2
    expected = float((chance * distance).sum())
    return math.nan if expected <= 0 else 1 - float((observed * distance).sum()) / expected


def over_tasks(parts: np.ndarray, figure: Callable[[np.ndarray], float], resamples: int, seed: int) -> dict:
    """A figure of sums over tasks, with its 95% percentile interval from a bootstrap over tasks: what is said within
    one hangs together.

    Args:
        parts: [tasks, n], what each task adds.
        figure: of the sum [n]; nan where it is not defined.

    Returns:
        {"value", "low", "high"}, null where not defined.
    """
    value = figure(parts.sum(0))
    if math.isnan(value):
        return dict.fromkeys(("value", "low", "high"))
    rng, n = np.random.default_rng(seed), len(parts)
    draws = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples))
    found = np.array([figure(times @ parts) for times in draws])
    found = found[~np.isnan(found)]
    if n < 2 or len(found) < 2:
        return {"value": value, "low": None, "high": None}
    low, high = np.quantile(found, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def told(rankings: Rankings, resamples: int, seed: int) -> dict:
    """Agreement of all labellers, and of each with the others.

    Alpha has a unit for each response of each task, whose values are the places (`midranks`) that labellers gave it.

    Returns:
        {"tasks", "pairs", "agreement", "strict_pairs", "strict_agreement", "alpha", "by_labeller"}: tasks that
        several ranked; pairs of labellers and responses; shares and alpha as `over_tasks` gives them; `strict` counts
        the pairs that both labellers decided.
    """
    shared = {task: of_task for task, of_task in sorted(rankings.items()) if len(of_task) >= 2}

    def share(counts: np.ndarray, part: int, whole: int) -> dict:
        counts = counts[counts[:, whole] > 0]
        return over_tasks(
            counts, lambda sums: sums[part] / sums[whole] if sums[whole] else math.nan, resamples, seed
        )  # fmt: skip

    places = {task: [midranks(ranks) for _, ranks in sorted(of.items())] for task, of in shared.items()}
    values = sorted({place for of_task in places.values() for of_one in of_task for place in of_one})
    size = len(values), len(values)
    parts = np.array([coincidences(list(zip(*of, strict=True)), values) for of in places.values()])
    parts = parts.reshape(len(shared), len(values) ** 2)
    counts = pair_counts(shared)
    by_labeller = {}
    for name in sorted({name for of_task in rankings.values() for name in of_task}):
        own = pair_counts(shared, name)
        ranked = sum(name in of_task for of_task in rankings.values())
        by_labeller[name] = {"ranked": ranked, "pairs": int(own[:, 0].sum()), "agreement": share(own, 1, 0)}
    return {
        "tasks": len(shared),
        "pairs": int(counts[:, 0].sum()),
        "agreement": share(counts, 1, 0),
        "strict_pairs": int(counts[:, 2].sum()),
        "strict_agreement": share(counts, 3, 2),
        "alpha": over_tasks(parts, lambda sums: ordinal_alpha(sums.reshape(size)), resamples, seed),
        "by_labeller": by_labeller,
    }


def wins(policies: Sequence[str | None], ranks: Sequence[int]) -> dict[str, float]:
    """Policy -> share of pairs with another policy's response that it won in one ranking, a tie half.

    Args:
        policies: who wrote each response; those of unknown policies are left out.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for (one, a), (other, b) in combinations(zip(policies, ranks, strict=True), 2):
        if one is not None and other is not None and one != other:
            won = 0.5 if a == b else float(a < b)
            scores[one].append(won)
            scores[other].append(1 - won)
    return {policy: sum(of) / len(of) for policy, of in scores.items()}
