"""From lm-eval's samples to scores: one row a metric, each with its interval, and one row a sample.

A row is {metric, value, stderr, low, high, n, chance, kind}; low and high end a 95% interval, null where one
unit gives none. Keys: TASK for the headline metric, TASK:METRIC for another, TASK:SUBSET for a part of the items.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .benchmark import Benchmark, Item, Row, Scores, chance
from .documents import Document
from .statistics import Estimate, clustered_mean, mean_of_independent, ratio_bootstrap, wilson

AVERAGE = "average"


def sample_rows(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    """What the model made of each item: the choice it picked with the log-probabilities (nats) of all, or its text.

    The pick is that of the headline metric: acc_norm divides by a choice's characters, as lm-eval does.

    Args:
        logged: lm-eval's samples; document i is items[i].
    """
    rows = []
    for sample in sorted(logged, key=lambda s: s["doc_id"]):
        item, given = items[sample["doc_id"]], sample["filtered_resps"]
        score = float(sample[benchmark.metric])
        row: Row = {
            "task": benchmark.name,
            "doc_id": item["id"],
            "cluster": item.get("cluster"),
            "prompt": sample["arguments"][0][0],
            "score": score,
            "correct": score == 1.0,
            "category": item.get("category"),
            "direction": item.get("direction"),
            "metrics": {name: float(sample[name]) for name in sample["metrics"]},
        }
        if "choices" in item:
            logprobs = [response[0] for response in given]
            weights = [len(c) if benchmark.metric == "acc_norm" else 1 for c in item["choices"]]
            picked = int(np.argmax(np.array(logprobs) / weights))
            row |= {"choices": item["choices"], "logprobs": logprobs, "picked": picked, "label": item["label"]}
        else:
            row |= {"response": given[0], "answers": item["answers"]}
        rows.append(row)
    return rows


def scores_of(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """The scores of a kind: choice, or the means of whatever metrics the items have."""
    if benchmark.kind == "choice":
        return choice_scores(benchmark, items, rows)
    return mean_scores(benchmark, rows)


def mean_scores(benchmark: Benchmark, rows: list[Row]) -> Scores:
    """The mean of each metric over items; the interval knows which items share a passage."""
    scores = {}
    clusters = [row["cluster"] or row["doc_id"] for row in rows]
    for metric in sorted(rows[0]["metrics"], key=lambda m: (m != benchmark.metric, m)):
        key = benchmark.name if metric == benchmark.metric else f"{benchmark.name}:{metric}"
        estimate = clustered_mean(np.array([row["metrics"][metric] for row in rows]), clusters)
        scores[key] = score_row(metric, estimate, len(rows), None, benchmark.kind)
    return scores


def choice_scores(benchmark: Benchmark, items: list[dict], rows: list[dict]) -> dict[str, dict]:
    """Accuracies of a multiple-choice task beside the accuracy of a guess."""
    guess, scores = chance(items), {}
    for metric in sorted(rows[0]["metrics"], key=lambda m: (m != benchmark.metric, m)):
        key = benchmark.name if metric == benchmark.metric else f"{benchmark.name}:{metric}"
        scores[key] = _share([r["metrics"][metric] for r in rows], metric, guess, "choice")
    return scores


def heldout_scores(documents: list[Document], nats: list[float], resamples: int, seed: int) -> dict[str, dict]:
    """Bits per byte of held-out text, overall and by source, with intervals by bootstrap over documents.

    Args:
        nats: log-probability of each document, natural logarithm.
    """
    bits = -np.array(nats) / math.log(2)
    size = np.array([document.bytes for document in documents], float)
    parts: dict[str, list[int]] = {"heldout": list(range(len(documents)))}
    for i, document in enumerate(documents):
        parts.setdefault(f"heldout:{document.source}", []).append(i)
    return {
        name: {
            **score_row("bits_per_byte", ratio_bootstrap(bits[at], size[at], resamples, seed), len(at), None, "text"),
            "heldout_bytes": int(size[at].sum()),
        }
        for name, at in sorted(parts.items())
    }


def average_score(scores: dict[str, dict]) -> dict[str, dict]:
    """The plain mean of the multiple-choice headline scores, beside the mean of their guesses."""
    rows = [row for name, row in sorted(scores.items()) if row["kind"] == "choice" and ":" not in name]
    if not rows:
        return {}
    estimates = [Estimate(row["value"], row["stderr"], row["low"], row["high"]) for row in rows]
    guess = sum(row["chance"] for row in rows) / len(rows)
    n = sum(row["n"] for row in rows)
    return {AVERAGE: score_row("mean accuracy", mean_of_independent(estimates), n, guess, "average")}


def _share(outcomes: list[float], metric: str, chance: float | None, kind: str) -> dict:
    return score_row(metric, wilson(round(sum(outcomes)), len(outcomes)), len(outcomes), chance, kind)


def score_row(metric: str, estimate: Estimate, n: int, chance: float | None, kind: str) -> dict[str, Any]:
    """One row of metrics.json."""
    numbers = {name: value if math.isfinite(value) else None for name, value in estimate._asdict().items()}
    return {"metric": metric, **numbers, "n": n, "chance": chance, "kind": kind}
