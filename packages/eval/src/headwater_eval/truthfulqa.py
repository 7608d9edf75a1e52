"""TruthfulQA (Lin, Hilton, Evans 2022, arXiv:2109.07958): BIG-bench's file of it as the hub's rows, and its scores.

`truthful_qa/questions.json` of the package bigbench holds 299 of the 817 questions, with every reference answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Benchmark, Item, Row
from .bigbench import examples
from .readers import Fields, Rows, items_of
from .scores import sample_rows

FILE = "truthful_qa/questions.json"


def choice_rows(path: Path) -> Rows:
    """Rows as the hub's config multiple_choice has them, with the column category of its config generation.

    `mc1_targets`: the best answer, then every false one. `mc2_targets`: the best answer, the other true ones, the
    false ones. Labels are 1 for true.

    Raises:
        UserError: not that file.
    """
    yield from items_of(enumerate(examples(path), 1), _choices)


def generation_rows(path: Path) -> Rows:
    """Rows as the hub's config generation has them, without `type` and `source`.

    Raises:
        UserError: not that file.
    """
    yield from items_of(enumerate(examples(path), 1), _references)


def _references(example: dict) -> Fields:
    best, true, false = example["Best answer"], example["True answers"], example["False answers"]
    if not isinstance(true, list) or not isinstance(false, list) or best not in true or not false:
        raise ValueError("the best answer is none of the true ones, or no answer is false")
    if not all(isinstance(text, str) and text.strip() for text in (example["Question"], *true, *false)):
        raise ValueError("an empty question or answer")
    if len({*true, *false}) != len(true) + len(false):
        raise ValueError("an answer stands twice")
    return {"category": example["Category"], "question": example["Question"], "best_answer": best,
            "correct_answers": true, "incorrect_answers": false}  # fmt: skip


def _choices(example: dict) -> Fields:
    row = _references(example)
    best, false = row["best_answer"], row["incorrect_answers"]
    true = [best, *(answer for answer in row["correct_answers"] if answer != best)]
    return {"category": row["category"], "question": row["question"],
            "mc1_targets": {"choices": [best, *false], "labels": [1] + [0] * len(false)},
            "mc2_targets": {"choices": [*true, *false], "labels": [1] * len(true) + [0] * len(false)}}  # fmt: skip


def true_mass(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """MC2 of one question: the probability of the true answers over that of all, lm-eval's but for very unlikely ones.

    Args:
        results: log-likelihood of each answer, nats. lm-eval takes their exponential as it is, which is 0/0 where all
            lie below -745.
    """
    nats = np.array([found[0] for found in results], float)
    mass = np.exp(nats - nats.max())
    return {"acc": float(mass[np.array(doc["mc2_targets"]["labels"]) == 1].sum() / mass.sum())}


def true_share(item: Item) -> float:
    """MC2 of a model that finds every answer equally likely: the share of true ones."""
    labels = item["row"]["mc2_targets"]["labels"]
    return sum(labels) / len(labels)


def mass_rows(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    """`scores.sample_rows` without right and wrong, which a share of probability has not."""
    return [{**row, "correct": None} for row in sample_rows(benchmark, items, logged)]


DEFINITIONS: dict[str, dict[str, Any]] = {
    "truthfulqa_mc1": {"file": FILE, "hub_rows": choice_rows},
    "truthfulqa_mc2": {"file": FILE, "hub_rows": choice_rows, "guess": true_share, "rows": mass_rows},
    "truthfulqa_gen": {"file": FILE, "hub_rows": generation_rows},
}
