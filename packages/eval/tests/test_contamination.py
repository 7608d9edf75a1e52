"""Clean and dirty parts: the counts of an overlap list, scores against hand counts, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from headwater_eval import contamination
from headwater_eval._contracts import manifest as artefacts
from headwater_eval._contracts.errors import UserError
from headwater_eval._contracts.manifest import Manifest
from headwater_eval.benchmark import Benchmark
from headwater_eval.statistics import Estimate, difference_of_independent, wilson

BENCHMARK = Benchmark("boolq", "yes or no", "x.jsonl", None, "acc")  # type: ignore[arg-type]
ITEMS = [{"id": f"boolq-{i}", "choices": ["no", "yes"], "label": 1} for i in range(10)]
ROWS = [{"doc_id": f"boolq-{i}", "cluster": None, "metrics": {"acc": float(i < 6)}} for i in range(10)]


def documents(folder: Path, *lines: dict, items: str = "abc", stage: str = "decontaminate") -> tuple[Path, Manifest]:
    folder.mkdir()
    (folder / "overlap.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = {"boolq": {"items": 10, "too_short": 2, "found": 1, "contained": 0}}
    (folder / "metrics.json").write_text(json.dumps({"tasks": tasks}))
    about = Manifest("documents", 1, "headwater-data", "0", stage, {}, {"items": items})
    return folder, artefacts.write(folder, about)


def found(task: str, id_: str, contaminated: bool) -> dict:
    return {"task": task, "id": id_, "words": 20, "method": "gpt3", "contaminated": contaminated, "score": 0.5}


def test_only_what_the_method_called_a_leak_is_dirty(tmp_path: Path) -> None:
    lines = [found("boolq", "boolq-1", True), found("boolq", "boolq-2", False), found("piqa", "piqa-1", True)]
    overlap = contamination.read(*documents(tmp_path / "clean", *lines), items="abc")
    assert overlap.dirty == {"boolq": {"boolq-1"}, "piqa": {"piqa-1"}} and overlap.too_short == {"boolq": 2}


def test_both_parts_are_scored_apart_and_their_difference_has_an_interval() -> None:
    dirty = contamination.Overlap({"boolq": frozenset({"boolq-0", "boolq-1", "boolq-9"})}, {"boolq": 0})
    scores = contamination.subset_scores(BENCHMARK, ITEMS, ROWS, dirty)
    assert (scores["boolq:dirty"]["value"], scores["boolq:dirty"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (scores["boolq:clean"]["value"], scores["boolq:clean"]["n"]) == (pytest.approx(4 / 7), 7)
    row = scores["boolq:dirty-clean"]
    assert row["value"] == pytest.approx(2 / 3 - 4 / 7) and row["low"] < row["value"] < row["high"] and row["n"] == 10
    assert {r["kind"] for r in scores.values()} == {"clean", "dirty", "difference"}


def test_a_task_without_dirty_items_has_a_clean_score_and_one_that_was_not_searched_has_none() -> None:
    scores = contamination.subset_scores(BENCHMARK, ITEMS, ROWS, contamination.Overlap({}, {"boolq": 0}))
    assert set(scores) == {"boolq:clean"} and scores["boolq:clean"]["value"] == 0.6
    assert contamination.subset_scores(BENCHMARK, ITEMS, ROWS, contamination.Overlap({}, {"piqa": 0})) == {}
    assert contamination.subset_scores(BENCHMARK, ITEMS, ROWS, None) == {}


def test_the_reports_chapter_shows_both_parts_of_every_headline_score(tmp_path: Path) -> None:
    from headwater_eval.report.inputs import load
    from headwater_eval.report.render import markdown
    from headwater_eval.report.scores import contamination as chapter

    dirty = contamination.Overlap({"boolq": frozenset({"boolq-9"})}, {"boolq": 0})
    (tmp_path / "metrics.json").write_text(json.dumps(contamination.subset_scores(BENCHMARK, ITEMS, ROWS, dirty)))
    about = artefacts.write(tmp_path, Manifest("results", 2, "headwater-eval", "0", "evaluate", {}))
    lineage = load({"results-base": tmp_path}, {"results-base": about}, ["results-base?"], tmp_path / "none")
    section = chapter(lineage)
    assert section is not None
    assert "| boolq | base | 9 | 66.7% \\[35.4, 87.9\\] | 1 | 0.0% " in markdown("t", "s", [section])
    (tmp_path / "metrics.json").write_text("{}")
    assert chapter(lineage) is None


def test_another_stages_documents_and_other_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="headwater-data decontaminate wrote"):
        contamination.read(*documents(tmp_path / "a", stage="dedup"), items="abc")
    with pytest.raises(UserError, match="other items"):
        contamination.read(*documents(tmp_path / "b"), items="xyz")


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_difference_of_two_shares_has_newcombes_published_interval(first, second, low, high) -> None:
    found = difference_of_independent(wilson(*first), wilson(*second))
    assert (found.low, found.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))
    normal = difference_of_independent(Estimate(1, 3, 1 - 2, 1 + 2), Estimate(0, 4, -1, 1))
    assert normal == (1, 5, 1 - math.sqrt(5), 1 + math.sqrt(5))
