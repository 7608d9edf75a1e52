"""From lm-eval's samples to scores: one row a metric, each with its interval, and one row a sample.

A row is {metric, value, stderr, low, high, n, chance, kind}; low and high end a 95% interval, null where one
unit gives none. Keys: TASK for the headline metric, TASK:METRIC for another, TASK:SUBSET for a part of the items.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from .benchmark import Benchmark, Item, Row, Scores, chance
from .documents import Document
from .statistics import (
    Z95,
    Estimate,
    cluster_bootstrap,
    clustered_mean,
    mean_of_independent,
    ratio_bootstrap,
    share_of_clustered,
    transformed,
    wilson,
)

AVERAGE = "average"


def sample_rows(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    """What the model made of each item: the choice it picked with the log-probabilities (nats) of all, or its text.

    The pick is that of the headline metric: acc_norm divides by a choice's characters, as lm-eval does. Where lm-eval
    reads an answer in several ways (its filters), the first one is the headline, and the metrics of the others are
    named METRIC-FILTER.

    Args:
        logged: lm-eval's samples; document i is items[i].
    """
    first = logged[0]["filter"] if logged else None
    others: dict[int, dict[str, Any]] = defaultdict(dict)
    for sample in logged:
        if sample["filter"] != first:
            metrics = {f"{name}-{sample['filter']}": _plain(sample[name]) for name in sample["metrics"]}
            others[sample["doc_id"]] |= metrics
    rows = []
    for sample in sorted((s for s in logged if s["filter"] == first), key=lambda s: s["doc_id"]):
        item, given = items[sample["doc_id"]], sample["filtered_resps"]
        score = float(sample[benchmark.metric]) if _is_number(sample[benchmark.metric]) else None
        row: Row = {
            "task": benchmark.name,
            "doc_id": item["id"],
            "cluster": item.get("cluster"),
            "prompt": sample["arguments"][0][0],
            "score": score,
            "correct": None if score is None else score == 1.0,
            "category": item.get("category"),
            "direction": item.get("direction"),
            "metrics": {name: _plain(sample[name]) for name in sample["metrics"]} | others[sample["doc_id"]],
        }
        if "choices" in item:
            logprobs = [response[0] for response in given[: len(item["choices"])]]
            weights = [len(c) if benchmark.metric == "acc_norm" else 1 for c in item["choices"]]
            picked = int(np.argmax(np.array(logprobs) / weights))
            row |= {"choices": item["choices"], "logprobs": logprobs, "picked": picked, "label": item["label"]}
        elif isinstance(given[0], str):
            row |= {"response": given[0], "answers": item["answers"]}
        else:
            row |= {"answers": item["answers"], "logprobs": [response[0] for response in given]}
        rows.append(row)
    return rows


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, str)


def _plain(value: Any) -> Any:
    """A metric of one item for JSON: a number, or what lm-eval aggregates over items (pairs of texts or labels)."""
    if _is_number(value):
        return float(value)
    return [_plain(part) if not isinstance(part, str) else part for part in value] if np.ndim(value) else value


def scores_of(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """The scores of whatever metrics the items have, beside chance where one chooses."""
    if benchmark.kind in ("choice", "alignment"):
        return choice_scores(benchmark, items, rows)
    scores = scores_of_metrics(benchmark, rows, tuple(rows[0]["metrics"]))
    return scores | category_scores(benchmark, items, rows) if benchmark.category else scores


def choice_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Accuracies of a multiple-choice task beside the accuracy of a guess; by category too, where it has some."""
    scores = scores_of_metrics(benchmark, rows, tuple(rows[0]["metrics"]), chance(benchmark, items))
    return scores | category_scores(benchmark, items, rows) if benchmark.category else scores


def scores_of_metrics(
    benchmark: Benchmark, rows: list[Row], metrics: tuple[str, ...], guess: float | None = None
) -> Scores:
    """Each metric over items, the headline first; the interval knows which items share a passage."""
    scores = {}
    for metric in sorted(metrics, key=lambda m: (m != benchmark.metric, m)):
        key = benchmark.name if metric == benchmark.metric else f"{benchmark.name}:{metric}"
        estimate = metric_estimate(benchmark, metric, rows)
        right = guess if metric.startswith("acc") else None
        scores[key] = score_row(metric, estimate, len(rows), right, benchmark.kind)
    return scores


def category_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """The headline metric by category (MMLU: by subject)."""
    scores = {}
    for category in sorted({row["category"] for row in rows if row["category"]}):
        part = [row for row in rows if row["category"] == category]
        guess = chance(benchmark, [item for item in items if item.get("category") == category])
        estimate = metric_estimate(benchmark, benchmark.metric, part)
        scores[f"{benchmark.name}:{category}"] = score_row(benchmark.metric, estimate, len(part), guess, benchmark.kind)
    return scores


def metric_estimate(benchmark: Benchmark, metric: str, rows: list[Row]) -> Estimate:
    """A metric over items with its interval.

    Wilson's for shares of items that stand alone, the clustered mean for other means, sacreBLEU's own bootstrap for its
    scores, and else a bootstrap of lm-eval's aggregation.
    """
    values = [row["metrics"][metric] for row in rows]
    clusters = [row["cluster"] or row["doc_id"] for row in rows]
    how = _aggregation(benchmark, metric) if benchmark.stock else "mean"
    if how == "mean":
        if len(set(clusters)) == len(clusters) and set(values) <= {0.0, 1.0}:
            return wilson(round(sum(values)), len(values))
        mean = share_of_clustered if metric.startswith("acc") else clustered_mean
        return mean(np.array(values, float), clusters)
    if how == "perplexity":
        return transformed(clustered_mean(np.array(values, float), clusters), lambda nats: math.exp(-nats))
    if isinstance(how, str):
        return translation_estimate(how, values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of resamples that lack a class: 0 is then right
        return cluster_bootstrap(values, clusters, how, 200, 0)


def _aggregation(benchmark: Benchmark, metric: str) -> str | Callable:
    """How lm-eval aggregates a metric of a stock task: `mean` or another known name, else the function."""
    from . import engine, tasks  # lm-eval, which takes seconds to import

    for entry in tasks.stock_config(benchmark).get("metric_list") or []:
        if entry["metric"] == metric.split("-")[0]:
            return engine.aggregation(entry["metric"], entry.get("aggregation"))
    return "mean"


def translation_estimate(metric: str, pairs: list[list]) -> Estimate:
    """Corpus BLEU, TER or chrF with sacreBLEU's bootstrap over sentences (Koehn 2004), its default seed.

    Args:
        pairs: reference (or a list of them) and translation, as lm-eval's bleu, ter and chrf keep them.
    """
    import sacrebleu

    references = [[pair[0]] if isinstance(pair[0], str) else list(pair[0]) for pair in pairs]
    written = [pair[1] if isinstance(pair[1], str) else pair[1][0] for pair in pairs]
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))]
    scorer = {"bleu": sacrebleu.BLEU, "ter": sacrebleu.TER, "chrf": sacrebleu.CHRF}[metric]()
    if len(pairs) == 1:
        return Estimate(scorer.corpus_score(written, streams).score, math.nan, math.nan, math.nan)
    score = scorer.corpus_score(written, streams, n_bootstrap=1000)
    value, half = float(score.score), float(score._ci)  # the latter is numpy's float32
    return Estimate(value, half / Z95, value - half, value + half)


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
    estimates = [  # null: all items of a task share one passage; the average then has no interval either
        Estimate(*(math.nan if row[key] is None else row[key] for key in Estimate._fields)) for row in rows
    ]
    guess = sum(row["chance"] for row in rows) / len(rows)
    n = sum(row["n"] for row in rows)
    return {AVERAGE: score_row("mean accuracy", mean_of_independent(estimates), n, guess, "average")}


def score_row(metric: str, estimate: Estimate, n: int, chance: float | None, kind: str) -> dict[str, Any]:
    """One row of metrics.json."""
    numbers = {name: value if math.isfinite(value) else None for name, value in estimate._asdict().items()}
    return {"metric": metric, **numbers, "n": n, "chance": chance, "kind": kind}
