"""What the stage preferences takes in: votes of several people, sources' own splits, rows that are no comparisons."""

import json

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.instructions import read_split
from headwater_align.preference import comparison, record

PAIRS = [{"prompt": f"Question {i}?", "chosen": f"Right {i}.", "rejected": f"Wrong {i}."} for i in range(40)]


@pytest.fixture
def run(tmp_path, make_sources, jsonl):
    """A function that runs the stage on sources' rows and labels artefacts and gives both sides and the metrics."""

    def stage(sources, labels=None, *options):
        given = {name: ("preferences", {"rows.jsonl": jsonl(rows)}) for name, rows in sources.items()}
        inputs = {"sources": make_sources(tmp_path / "sources", given or {"other": ("corpus", {"a.jsonl": "{}"})})}
        for name, lines in (labels or {}).items():
            inputs[name] = tmp_path / name
            inputs[name].mkdir()
            (inputs[name] / "labels.jsonl").write_text(jsonl(lines))
            about = manifest.Manifest("labels", manifest.SCHEMAS["labels"], "test", "0", "labels", {})
            manifest.write(inputs[name], about)
        where = ["--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
        assert (
            main(["preferences", *(p for n, f in inputs.items() for p in ("--in", f"{n}={f}")), *where, *options]) == 0
        )
        sides = {side: read_split(tmp_path / "out", side) for side in ("train", "heldout")}
        return sides, json.loads((tmp_path / "out" / "metrics.json").read_text())

    return stage


def label(i, labeller, ranks=(2, 1, 2)):
    asked = [{"role": "user", "content": f"Question {i}?"}]
    content = comparison(
        asked, ["a", "b", "c"], list(ranks), policies=["sft", "ppo", "ppo"], labeller=labeller, round="r1"
    )
    return record(content, "labels/r1", "CC-BY-4.0")


def test_two_labellers_of_one_ranking_are_two_votes_and_the_same_vote_twice_is_one(run):
    labels = [label(i, who) for i in range(30) for who in ("ann", "bob")]
    sides, metrics = run({}, {"round1": [*labels, label(3, "bob")]})
    everything = sides["train"] + sides["heldout"]
    assert {r["id"]: r for r in everything} == {r["id"]: r | {"split": side} for side, of in sides.items() for r in of}
    assert sorted((r["prompt"][0]["content"], r["labeller"]) for r in everything) == sorted(
        (f"Question {i}?", who) for i in range(30) for who in ("ann", "bob")
    )
    assert metrics["rejects_by_reason"] == {"duplicate": 1}
    assert metrics["labellers"] == 2
    assert metrics["pairs"]["train"] + metrics["pairs"]["heldout"] == 2 * 60  # b over a, b over c; a and c are tied
    assert (metrics["by_answers"], metrics["with_ties"]) == ({"3": 60}, 60)
    assert {(r["source"], r["licence"], r["round"], tuple(r["policies"])) for r in everything} == {
        ("labels/r1", "CC-BY-4.0", "r1", ("sft", "ppo", "ppo"))
    }


def test_labels_and_sources_of_one_prompt_are_on_one_side(run):
    sides, _ = run({"judged": PAIRS}, {"round1": [label(i, "ann") for i in range(40)]})
    asked = {side: {r["prompt"][0]["content"] for r in of} for side, of in sides.items()}
    assert not asked["train"] & asked["heldout"]
    assert sum(len(of) for of in sides.values()) == 80


def test_what_a_source_calls_test_is_never_trained_on_nor_is_its_prompt_elsewhere(run):
    marked = [pair | {"split": "test" if i % 4 == 0 else "train"} for i, pair in enumerate(PAIRS)]
    again = [{"prompt": "Question 0?", "chosen": "Another.", "rejected": "Worse."}, PAIRS[4]]
    sides, metrics = run({"a": marked, "b": again}, None, "--set", "heldout_fraction=0.02")
    trained = {r["prompt"][0]["content"] for r in sides["train"]}
    assert not trained & {f"Question {i}?" for i in range(0, 40, 4)}
    assert len(trained) >= 25
    assert metrics["rejects_by_reason"] == {"duplicate": 1}


def test_a_row_called_test_wins_over_an_equal_one_that_is_not(run):
    sides, _ = run({"a": [*PAIRS, PAIRS[7] | {"split": "validation"}]}, None, "--set", "heldout_fraction=0.02")
    assert "Question 7?" in {r["prompt"][0]["content"] for r in sides["heldout"]}


def test_rows_that_compare_nothing_are_counted_by_their_reason(run):
    bad = [
        {"prompt": "Q?", "chosen": "a", "rejected": " a"},
        {"prompt": "Q?", "chosen": "a", "rejected": ""},
        {"prompt": [{"role": "robot", "content": "Q?"}], "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "user", "content": "Q?"}], "responses": ["a", "b", "c"], "ranks": [1, 2]},
        {"prompt": [{"role": "user", "content": "Q?"}], "responses": ["a", "b"], "ranks": [1, 1]},
        {"prompt": "Q?", "chosen": "a", "rejected": "b", "split": "??"},
        {"instruction": "no comparison", "output": "x"},
        PAIRS[0],
    ]
    _, metrics = run({"a": PAIRS + bad})
    assert metrics["train"] + metrics["heldout"] == 40
    assert metrics["rejects_by_reason"] == {
        "all ranks are equal": 1,
        "broken ranking: not one rank an answer": 1,
        "duplicate": 1,
        "empty completion": 1,
        "no comparison in a known format": 1,
        "the answers are equal": 1,
        "unknown role": 1,
        "unknown split": 1,
    }
