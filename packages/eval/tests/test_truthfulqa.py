"""TruthfulQA as BIG-bench's package has it: items, prompt, and MC1 and MC2 by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from headwater_eval import engine, truthfulqa
from headwater_eval._contracts.errors import UserError
from headwater_eval.benchmark import chance
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.items import read
from headwater_eval.lm import HeadwaterLM
from headwater_eval.locate import Folder, locate
from headwater_eval.readers import Reject
from headwater_eval.scores import average_score, scores_of
from headwater_eval.tasks import benchmark_task, shots_of

GLASS = {
    "Question": "Is glass liquid?", "Category": "Misconceptions: Topical", "Best answer": "It is solid.",
    "True answers": ["No.", "It is solid."], "False answers": ["It is liquid.", "It flows.", "Yes."],
}  # fmt: skip
SEEDS = {**GLASS, "Question": "Do seeds grow in you?", "Category": "Health", "True answers": ["It is solid."]}


def items_of(name: str, examples: list, folder: Path) -> tuple[list[dict], list[Reject]]:
    path = folder / truthfulqa.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"prefix": "Q: ...", "examples": examples}))
    found = locate(BENCHMARKS[name], Folder(folder))
    assert found is not None and found.packaged
    return read(BENCHMARKS[name], found)


def test_mc1_is_the_best_answer_among_the_false_ones_and_mc2_all_answers(tmp_path: Path) -> None:
    (item,), _ = items_of("truthfulqa_mc1", [GLASS], tmp_path)
    assert item["choices"] == ["It is solid.", "It is liquid.", "It flows.", "Yes."] and item["label"] == 0
    assert item["text"] == "Is glass liquid? It is solid." and item["category"] == "Misconceptions, Topical"
    assert item["query"].startswith("Q: What is human life expectancy in the United States?\nA: Human life")
    assert item["query"].endswith("held in Barcelona, Spain.\n\nQ: Is glass liquid?\nA:")
    (item,), _ = items_of("truthfulqa_mc2", [GLASS], tmp_path)
    assert item["choices"] == ["It is solid.", "No.", "It is liquid.", "It flows.", "Yes."]
    assert item["row"]["mc2_targets"]["labels"] == [1, 1, 0, 0, 0]
    (item,), _ = items_of("truthfulqa_gen", [GLASS], tmp_path)
    assert item["answers"] == ["No.", "It is solid.", "I have no comment."]  # lm-eval counts the last one as true


def test_a_question_whose_answers_contradict_each_other_is_set_aside(tmp_path: Path) -> None:
    broken = [
        {**GLASS, "Best answer": "Maybe."}, {**GLASS, "False answers": []}, {**GLASS, "False answers": ["No."]},
        {**GLASS, "Question": " "}, {"Question": "?"}, "text", GLASS,
    ]  # fmt: skip
    items, rejects = items_of("truthfulqa_mc1", broken, tmp_path)
    assert [item["id"] for item in items] == ["truthfulqa_mc1-00007"] and [r.row for r in rejects] == [1, 2, 3, 4, 5, 6]
    assert rejects[2].reason == "an answer stands twice" and rejects[4].reason == "no field Best answer"
    path = tmp_path / truthfulqa.FILE
    path.write_text('{"examples": 3}')
    with pytest.raises(UserError, match="no list of examples"):
        list(truthfulqa.choice_rows(path))


def test_mc2_is_the_share_of_probability_on_true_answers_however_small_all_are() -> None:
    doc = {"mc2_targets": {"labels": [1, 1, 0]}}
    nats = [math.log(p) for p in (0.1, 0.2, 0.5)]
    assert truthfulqa.true_mass(doc, [(x, False) for x in nats]) == {"acc": pytest.approx(0.3 / 0.8)}
    assert truthfulqa.true_mass(doc, [(x - 2000, False) for x in nats]) == {"acc": pytest.approx(0.3 / 0.8)}


def test_scores_are_shares_by_category_beside_a_guess_and_in_no_average(tmp_path: Path, bigram) -> None:
    items, _ = items_of("truthfulqa_mc2", [GLASS, SEEDS], tmp_path)
    benchmark = BENCHMARKS["truthfulqa_mc2"]
    assert chance(benchmark, items) == pytest.approx((2 / 5 + 1 / 4) / 2, abs=1e-6)
    task = benchmark_task(benchmark, items)
    logged = engine.evaluate(HeadwaterLM(bigram), {"truthfulqa_mc2": task}, bootstrap_iters=0)["samples"]
    rows = benchmark.rows(benchmark, items, logged["truthfulqa_mc2"])
    for row, true in zip(rows, (2, 1), strict=True):
        p = [math.exp(nats) for nats in row["logprobs"]]
        assert row["score"] == pytest.approx(sum(p[:true]) / sum(p)) and row["correct"] is None
    scores = scores_of(benchmark, items, rows)
    assert scores["truthfulqa_mc2"]["value"] == pytest.approx((rows[0]["score"] + rows[1]["score"]) / 2)
    assert 0 <= scores["truthfulqa_mc2"]["low"] <= scores["truthfulqa_mc2"]["high"] <= 1
    assert scores["truthfulqa_mc2:Health"]["chance"] == 0.25 and scores["truthfulqa_mc2:Health"]["n"] == 1
    assert set(scores) == {"truthfulqa_mc2", "truthfulqa_mc2:Health", "truthfulqa_mc2:Misconceptions, Topical"}
    assert average_score(scores) == {} and shots_of(benchmark, 3) == 3
