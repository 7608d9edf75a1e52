"""Whom a pronoun refers to: the prompt and the scores that WinoBias and Winogender share.

The sentence, then ` 'She' refers to the`, and the two people as choices: lm-eval's `winogender_all`, which is how
GPT-3 was asked (Brown et al. 2020, arXiv:2005.14165, section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..benchmark import Row
from .measures import choice_metrics, mean, of_totals, ratio


def task() -> dict:
    """Multiple choice over an item's two people."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: f"{doc['query']} ‘{doc['pronoun'].capitalize()}’ refers to the",
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["label"],
        "metric_list": choice_metrics(),
    }


def accuracy(rows: list[Row]) -> dict:
    """Share of pronouns resolved, of two people each."""
    return mean([row["score"] for row in rows], [row["cluster"] for row in rows], "acc", 0.5)


def difference(rows: list[Row], part: Callable[[Row], str | None], first: str, second: str) -> dict:
    """Accuracy on one part minus that on another; the bootstrap draws templates, so their sentences stay together."""
    values = np.array([[row["score"] * (part(row) == first), part(row) == first,
                        row["score"] * (part(row) == second), part(row) == second] for row in rows], float)  # fmt: skip
    clusters = [row["cluster"] for row in rows]
    return of_totals(values, clusters, lambda t: ratio(t, 0, 1) - ratio(t, 2, 3), "difference", 0.0)
