"""From samples to scores: picks, directions and averages."""

from __future__ import annotations

import pytest

from headwater_eval import engine
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.lm import HeadwaterLM
from headwater_eval.scores import average_score, choice_scores, sample_rows
from headwater_eval.tasks import benchmark_task


def ask(bigram, name: str, items: list[dict]) -> list[dict]:
    task = benchmark_task(BENCHMARKS[name], items)
    samples = engine.evaluate(HeadwaterLM(bigram), {name: task}, bootstrap_iters=0)["samples"][name]
    return sample_rows(BENCHMARKS[name], items, samples)


def test_the_pick_is_the_one_that_the_headline_metric_judged(bigram) -> None:
    """acc prefers the short choice, acc_norm the likelier character."""
    items = [
        {"id": f"piqa-{i}", "query": "q", "choices": ["zz", "the cat sat on the mat"], "label": i % 2} for i in range(4)
    ]
    rows = ask(bigram, "piqa", items)
    assert {row["picked"] for row in rows} == {1}
    assert [row["correct"] for row in rows] == [row["picked"] == row["label"] for row in rows]
    assert all(row["logprobs"][0] > row["logprobs"][1] for row in rows)
    scores = choice_scores(BENCHMARKS["piqa"], items, rows)
    assert scores["piqa"]["metric"] == "acc_norm" and scores["piqa"]["value"] == 0.5
    assert scores["piqa:acc"]["value"] == 0.5 and scores["piqa"]["chance"] == 0.5


def test_the_average_leaves_bias_and_other_metrics_out() -> None:
    row = {"stderr": 0.1, "low": 0, "high": 1, "n": 10, "chance": 0.5, "kind": "choice", "metric": "acc"}
    scores = {"a": {**row, "value": 0.4}, "a:acc_norm": {**row, "value": 0.9}, "b": {**row, "value": 0.6, "chance": 0.25},  # noqa: E501
              "bias": {**row, "value": 0.9, "kind": "bias"}}  # fmt: skip
    average = average_score(scores)["average"]
    assert average["value"] == pytest.approx(0.5) and average["chance"] == 0.375 and average["n"] == 20
    assert average_score({}) == {}


def test_an_average_over_a_task_whose_items_share_one_passage_has_no_interval() -> None:
    alone = {
        "metric": "acc",
        "value": 0.5,
        "stderr": None,
        "low": None,
        "high": None,
        "n": 4,
        "chance": 0.5,
        "kind": "choice",
    }
    other = {**alone, "value": 1.0, "stderr": 0.1, "low": 0.8, "high": 1.0}
    row = average_score({"a": alone, "b": other})["average"]
    assert row["value"] == 0.75 and row["low"] is None and row["stderr"] is None
