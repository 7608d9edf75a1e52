"""Accuracies with intervals, and the paired difference of two models on the same questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..intervals import resampled_sums, wilson


def accuracy(records: Sequence[dict], said: Sequence[str], right: Sequence[bool]) -> dict:
    """Share of right answers with Wilson's 95% interval, beside what knows nothing.

    `chance` picks an option blindly (0 where the answer is free); `majority` always gives the commonest answer;
    `balanced` is the mean over the right answers of the share got right: a model that always says the same has
    1 / (number of answers) of it, however often that is right. `same` is the share of the model's commonest answer.
    """
    n, hits = len(right), int(sum(right))
    low, high = wilson(hits, n)
    asked = Counter(record["answer"] for record in records)
    got = Counter(record["answer"] for record, hit in zip(records, right, strict=True) if hit)
    chance = sum(1 / len(record["options"]) for record in records if record["options"]) / max(n, 1)
    return {
        "n": n,
        "right": hits,
        "accuracy": hits / max(n, 1),
        "low": low,
        "high": high,
        "chance": chance,
        "majority": max(asked.values(), default=0) / max(n, 1),
        "balanced": sum(got[answer] / times for answer, times in asked.items()) / max(len(asked), 1),
        "same": max(Counter(said).values(), default=0) / max(n, 1),
    }


def paired(
    groups: Sequence[str], before: Sequence[bool], after: Sequence[bool], resamples: int, seed: int
) -> dict[str, float | int]:
    """After less before on the same questions: mean, 95% percentile-bootstrap interval, and the flips each way.

    Args:
        groups: questions of one group (two claims about one sentence) are drawn together, since they are not
            independent (Efron and Tibshirani 1993, chapter 8).
    """
    gain = np.asarray(after, np.int64) - np.asarray(before, np.int64)
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    sums = resampled_sums(np.column_stack([gain, np.ones(len(gain))]), [names[g] for g in groups], seed, resamples)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return {
        "n": len(gain),
        "groups": len(names),
        "difference": float(gain.mean()),
        "low": float(low),
        "high": float(high),
        "wrong_to_right": int((gain > 0).sum()),
        "right_to_wrong": int((gain < 0).sum()),
    }
