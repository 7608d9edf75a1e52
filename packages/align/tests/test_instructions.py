import json

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.instructions import read_split

ROWS = [{"instruction": f"Question {i}?", "output": f"Answer {i}."} for i in range(40)]


@pytest.fixture
def make(tmp_path, make_sources):
    """A function that runs the stage on sources {name: (role, files)} and gives exit code and output folder."""

    def run(*options, **sources):
        here = tmp_path / str(len(list(tmp_path.iterdir())))
        folder = make_sources(here / "sources", sources)
        common = ["--in", f"sources={folder}", "--out", f"{here}/out", "--work", f"{here}/work"]
        return main(["instructions", *common, *options]), here / "out"

    return run


def test_bad_rows_are_counted_and_set_aside_and_the_rest_goes_on(make, jsonl):
    text = jsonl(ROWS[:20]) + "{broken\n" + jsonl([{"instruction": "x"}, ROWS[0]]) + jsonl(ROWS[20:])
    code, out = make(s=("instructions", {"a.jsonl": text}))
    metrics = json.loads((out / "metrics.json").read_text())
    assert code == 0
    assert metrics["train"] + metrics["heldout"] == 40
    assert metrics["rejects_by_reason"] == {
        "does not end with the assistant": 1,
        "duplicate": 1,
        "not parseable": 1,
    }
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [r["row"] for r in rejects] == [20, 21, 22]


def test_a_cap_limits_one_source_and_leaves_the_others(make, jsonl):
    other = [{"instruction": f"Other {i}?", "output": "Yes."} for i in range(40)]
    sources = {"a": ("instructions", {"a.jsonl": jsonl(ROWS)}), "b": ("instructions", {"b.json": json.dumps(other)})}
    _, out = make("--set", "max_rows.a=10", **sources)
    by_source = json.loads((out / "metrics.json").read_text())["by_source"]
    assert by_source["a"]["train"] + by_source["a"]["heldout"] == 10
    assert by_source["b"]["train"] + by_source["b"]["heldout"] == 40


def test_packed_and_loose_yaml_dialogues_give_the_same_conversations(make, jsonl):
    text = "conversations:\n- - Hello\n  - Hi\n- - Who are you?\n  - A model.\n"
    packed = jsonl([{"path": "talk.yml", "text": text}])
    _, loose_out = make(s=("instructions", {"talk.yml": text}))
    _, packed_out = make(s=("instructions", {"tree.jsonl": packed}))
    for side in ("train", "heldout"):
        assert read_split(loose_out, side) == read_split(packed_out, side)


def test_a_demonstration_that_holds_a_benchmark_item_is_refused(make, jsonl, tmp_path):
    item = "Which of these would float best upon a cold lake: stone, iron, or dry wood?"
    leaked = {"instruction": f"Tell me. {item}", "output": "Dry wood."}
    items = tmp_path / "items"
    items.mkdir()
    (items / "quiz.jsonl").write_text(json.dumps({"id": "1", "text": item}) + "\n")
    manifest.write(items, manifest.Manifest("items", 2, "test", "0", "items", {}))
    _, out = make("--in", f"items={items}", s=("instructions", {"a.jsonl": jsonl([*ROWS, leaked])}))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rejects_by_reason"] == {"holds a benchmark item": 1}


@pytest.mark.parametrize(
    ("option", "said"),
    [("sources=[missing]", "no source missing"), ("sources=[]", "no source of role instructions")],
)
def test_a_missing_source_is_one_line_that_names_it(make, jsonl, capsys, option, said):
    code, out = make("--set", option, s=("corpus", {"a.jsonl": jsonl(ROWS)}))
    error = capsys.readouterr().err
    assert code == 1
    assert said in error and error.count("\n") == 1
    assert not out.exists()


def test_docstrings_become_questions_with_answers_from_the_docstring(docstring_sources, tmp_path):
    common = ["--in", f"sources={docstring_sources}", "--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
    assert main(["instructions", *common, "--set", "sources=[docstrings]", "--set", "phrasings=3"]) == 0
    records = read_split(tmp_path / "out", "train") + read_split(tmp_path / "out", "heldout")
    about_mean = {
        r["messages"][0]["content"]: r["messages"][1]["content"] for r in records if "statistics.mean " in str(r)
    }
    assert "Return the sample arithmetic mean of data." in about_mean.values()


def test_a_demonstration_called_test_is_held_out_with_its_prompt_and_task_names_are_kept(make, jsonl):
    rows = [{"inputs": f"Question {i}?", "targets": "Yes.", "task_name": "quiz", "split": "train"} for i in range(40)]
    rows += [{"inputs": f"question  {i}?", "targets": "No.", "split": "test"} for i in range(0, 40, 4)]
    _, out = make("--set", "heldout_fraction=0.02", s=("instructions", {"a.jsonl": jsonl(rows)}))
    train, heldout = (read_split(out, side) for side in ("train", "heldout"))
    assert {r["split"] for r in train} == {"train"} and {r["split"] for r in heldout} == {"heldout"}
    assert not {r["messages"][0]["content"] for r in train} & {f"Question {i}?" for i in range(0, 40, 4)}
    assert len(train) + len(heldout) == 50
    assert {r["task"] for r in train} == {"quiz"}
