"""Review from results to findings: what is drawn, what reviewers see, what comes back, what is refused."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_eval import samples
from headwater_eval._contracts import manifest as artefacts
from headwater_eval._contracts.errors import UserError
from headwater_eval.cli import main
from headwater_eval.review import answers
from headwater_eval.review.config import ReviewExportConfig, default_classes
from headwater_eval.review.sampling import allocate, assign, margin
from headwater_eval.review.sheet import COLUMNS

HOSTILE = '=HYPERLINK("http://x")</script><script>document.title="owned"</script>\u202e'


def results(folder: Path, write_artefact, n: int = 60, seed: int = 1) -> Path:
    """n multiple-choice answers, a third of them right, and as many written ones, all wrong."""
    rng = random.Random(seed)
    rows: list[dict] = []
    for i in range(n):
        logprobs = [-rng.random() * 5 for _ in range(3)]
        picked = max(range(3), key=lambda c: logprobs[c])
        label = picked if i % 3 == 0 else (picked + 1) % 3
        rows.append({"task": "quiz", "doc_id": f"quiz-{i:05d}", "prompt": f"Question {i}?", "logprobs": logprobs,
                     "choices": ["red", "green", HOSTILE], "picked": picked, "label": label, "score": 0.0,
                     "correct": picked == label, "category": "colour"})  # fmt: skip
        rows.append({"task": "essay", "doc_id": f"essay-{i:05d}", "prompt": f"Write {i}.", "response": HOSTILE,
                     "answers": ["one", "two"], "score": 0.1, "correct": False})  # fmt: skip
    rows.append({"task": "pairs", "doc_id": "pairs-1", "prompt": "", "choices": ["a", "b"], "logprobs": [-1.0, -2.0],
                 "picked": 0, "label": 0, "score": 1.0, "correct": True, "direction": "stereo"})  # fmt: skip
    rows.append({**rows[-1], "task": "masses", "doc_id": "masses-0", "score": 0.4, "correct": None, "direction": None})
    folder.mkdir(parents=True)
    samples.write(folder, rows)
    return write_artefact(folder, "results")


@pytest.fixture
def exported(tmp_path: Path, write_artefact) -> Path:
    given_ = [f"{m}={results(tmp_path / m, write_artefact, seed=i)}" for i, m in enumerate(("earlier", "later"))]
    command = ["review", "export", *(a for g in given_ for a in ("--in", g)), "--out", str(tmp_path / "sheet")]
    assert main([*command, "--work", str(tmp_path / "w"), "--set", "items=40"]) == 0
    return tmp_path / "sheet"


def imported(tmp_path: Path, sheet: Path, *files: Path, more: tuple[str, ...] = ()) -> int:
    where = ["--in", f"sheet={sheet}", "--out", str(tmp_path / "review"), "--work", str(tmp_path / "w")]
    return main(["review", "import", *map(str, files), *where, *more])


def key(sheet: Path) -> dict[str, dict]:
    return {row["item"]: row for row in pq.read_table(sheet / "key.parquet").to_pylist()}


def judged(path: Path, rows: list[tuple[str, str, str]], header: str = "item,class,reviewer") -> Path:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    path.write_text(header + "\n" + out.getvalue())
    return path


def test_each_outcome_and_margin_is_drawn_and_pairs_of_sentences_are_not(exported: Path) -> None:
    rows = key(exported).values()
    assert len(rows) == 40 and {row["task"] for row in rows} == {"quiz", "essay"}
    of_quiz = {(row["model"], row["outcome"], row["confidence"]) for row in rows if row["task"] == "quiz"}
    assert of_quiz == {
        (m, o, c) for m in ("earlier", "later") for o in ("right", "wrong") for c in ("confident", "unsure")
    }
    strata: dict[str, tuple[int, int]] = {}
    for row in rows:
        strata[row["stratum"]] = (row["population"], row["sampled"])
    assert sum(size for size, _ in strata.values()) == 240 and sum(n for _, n in strata.values()) == 40
    wrong = sum(row["outcome"] == "wrong" for row in rows)
    assert wrong > 40 * 2 / 3  # weight 3 against 1


def test_completions_of_fixed_prompts_are_reviewed_too(tmp_path: Path, write_artefact) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    told = {"format": "chat", "source": "q", "prompt": "Who wrote Hamlet?", "reference": None, "tokens": 3}
    rows = [{**told, "id": f"question-{i}", "completion": f"A man\u2028 of {i}."} for i in range(3)]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "generations.jsonl").write_text("".join(lines))
    write_artefact(folder, "results")
    command = ["review", "export", "--in", f"results={folder}", "--out", str(tmp_path / "sheet")]
    assert main([*command, "--work", str(tmp_path / "w")]) == 0
    found = sorted(key(tmp_path / "sheet").values(), key=lambda row: row["doc_id"])
    assert [(row["task"], row["doc_id"], row["outcome"], row["gold"]) for row in found] == [
        ("generations", f"chat/question-{i}", "ungraded", "") for i in range(3)
    ]
    assert found[0]["answer"].startswith("A man")


def test_results_without_answers_are_one_line(tmp_path: Path, write_artefact, capsys) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/metrics.json").write_text("{}")
    command = ["review", "export", "--in", f"results={write_artefact(tmp_path / 'results', 'results')}"]
    assert main([*command, "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]) == 1
    assert "no answers in it" in capsys.readouterr().err


def test_confidence_is_the_margin_of_the_picked_choice() -> None:
    assert margin({"logprobs": [-1.0, -1.5, -4.0], "picked": 0}) == 0.5
    assert margin({"logprobs": [-1.0, -1.5], "picked": 1}) == -0.5  # picked by length-normalised scores
    assert margin({"logprobs": None, "picked": None}) is None


def test_reviewers_see_neither_model_nor_outcome_and_share_some_answers(exported: Path) -> None:
    rows = key(exported)
    seen: dict[str, list[str]] = {}
    for folder in sorted((exported / "reviewers").iterdir()):
        text = (folder / "review.csv").read_text()
        told = list(csv.DictReader(io.StringIO(text)))
        seen[folder.name] = [row["item"] for row in told]
        assert set(told[0]) == set(COLUMNS)
        for name in ("review.csv", "review.html", "tasks.json"):
            whole = (folder / name).read_text()
            assert "earlier" not in whole and "unsure" not in whole and "quiz-0" not in whole
        tasks = json.loads((folder / "tasks.json").read_text())
        assert [task["data"]["item"] for task in tasks] == seen[folder.name]
    first, second = seen.values()
    both = set(first) & set(second)
    assert {row["item"] for row in rows.values() if len(row["reviewers"]) == 2} == both
    assert len(both) == 12 and set(first) | set(second) == set(rows)  # 30% of 40
    assert [i for i in first if i in both] != [i for i in second if i in both]  # an order of their own


def test_a_spreadsheet_runs_nothing_that_a_model_wrote(exported: Path) -> None:
    for folder in (exported / "reviewers").iterdir():
        for row in csv.DictReader(io.StringIO((folder / "review.csv").read_text())):
            assert not any(value.startswith(("=", "+", "-", "@")) for value in row.values())
            assert "\u202e" not in row["answer"]


def test_label_studios_tasks_hold_what_its_configuration_shows(exported: Path) -> None:
    view = ElementTree.parse(exported / "label_studio.xml").getroot()
    shown = {tag.get("value", "").removeprefix("$") for tag in view.iter("Text")}
    names = {tag.get("name") for tag in view.iter("Text")}
    assert {tag.get("toName") for tag in (*view.iter("Choices"), *view.iter("TextArea"))} <= names
    assert [tag.get("value") for tag in view.iter("Choice")] == list(default_classes())
    (tasks, *_) = [json.loads(p.read_text()) for p in sorted((exported / "reviewers").glob("*/tasks.json"))]
    assert all(shown <= set(task["data"]) for task in tasks)


def test_exports_repeat_byte_for_byte(exported: Path, tmp_path: Path) -> None:
    command = ["review-export", *(a for m in ("earlier", "later") for a in ("--in", f"{m}={tmp_path / m}"))]
    assert main([*command, "--out", str(tmp_path / "b"), "--work", str(tmp_path / "v"), "--set", "items=40"]) == 0
    assert artefacts.read(tmp_path / "b").files == artefacts.read(exported).files


def test_each_stratum_gives_two_answers_however_few_were_asked_for(exported: Path, tmp_path: Path, capsys) -> None:
    command = ["review", "export", "--in", f"earlier={tmp_path / 'earlier'}", "--out", str(tmp_path / "o")]
    assert main([*command, "--work", str(tmp_path / "w"), "--set", "items=4"]) == 0
    assert "are more than items (4)" in capsys.readouterr().out
    drawn = Counter(row["stratum"] for row in pq.read_table(tmp_path / "o" / "key.parquet").to_pylist())
    assert list(drawn.values()) == [2] * 5


@given(
    st.dictionaries(st.tuples(st.just("m"), st.sampled_from("abcdef"), st.sampled_from(["right", "wrong"])),
                    st.integers(1, 50), min_size=1),
    st.integers(24, 200),
)  # fmt: skip
def test_allocations_use_the_budget_and_exceed_no_stratum(sizes: dict, items: int) -> None:
    given_ = allocate(sizes, {"right": 1.0, "wrong": 3.0}, items)
    assert sum(given_.values()) == min(items, sum(sizes.values()))
    assert all(min(2, sizes[key]) <= n <= sizes[key] for key, n in given_.items())


@given(st.integers(1, 60), st.floats(0, 1), st.integers(1, 5))
def test_reviewers_get_about_the_same_number(n: int, overlap: float, people: int) -> None:
    config = ReviewExportConfig(reviewers=[f"r{i}" for i in range(people)], overlap=overlap)
    found = assign([f"item-{i}" for i in range(n)], config)
    load = [sum(r in who for who in found.values()) for r in config.reviewers]
    assert max(load) - min(load) <= 1
    shared = sum(len(who) > 1 for who in found.values())
    assert people == 1 or abs(shared - n * overlap) <= 1


def test_shares_speak_for_all_answers_and_not_for_the_sample(exported: Path, tmp_path: Path) -> None:
    # Reviewers find a fault exactly in what is wrong: the share of faults must be that of wrong answers, 5 of 6.
    rows = key(exported)
    told = {"right": "none", "wrong": "wrong fact"}
    file = judged(
        tmp_path / "a.csv", [(i, told[row["outcome"]], r) for i, row in rows.items() for r in row["reviewers"]]
    )
    assert imported(tmp_path, exported, file) == 0
    review = json.loads((tmp_path / "review/review.json").read_text())
    for model in ("earlier", "later"):
        assert review["by_model"][model]["failures"]["value"] == pytest.approx(100 / 120)
        assert review["by_task"][f"{model}/quiz"]["failures"]["value"] == pytest.approx(40 / 60)
        assert review["by_task"][f"{model}/essay"]["classes"]["wrong fact"]["value"] == 1
    assert review["agreement"]["alpha"] == 1 and review["agreement"]["items"] == 12
    assert review["all"]["covered"] == 1 and review["all"]["reviewed"] == 40
    low, high = review["all"]["failures"]["low"], review["all"]["failures"]["high"]
    assert low < 100 / 120 < high
    text = (tmp_path / "review/review.md").read_text()
    assert "| wrong fact | 83.3% |" in text and "expected: one | two" in text


def test_what_is_no_judgement_is_set_aside_with_its_reason(exported: Path, tmp_path: Path) -> None:
    one, two, three, four = sorted(key(exported))[:4]
    file = judged(
        tmp_path / "a.csv",
        [(one, "none", "r1"), (one, "Wrong Fact ", "r1"), (two, "boring", "r1"), ("nowhere", "none", "r1"),
         (three, "", "r1"), (four, "made up", "r1")],
    )  # fmt: skip
    assert imported(tmp_path, exported, file, more=("--set", 'classes={"made up": "invents a source"}')) == 0
    rejects = [json.loads(line) for line in (tmp_path / "review/rejects.jsonl").read_text().splitlines()]
    assert [(r["row"], r["reason"].split(",")[0].split(";")[0]) for r in rejects] == [
        (1, "judged again by the same reviewer in row 2 of a.csv"),
        (3, "no class boring"),
        (4, "no item of this sample"),
    ]
    kept = [json.loads(line) for line in (tmp_path / "review/answers.jsonl").read_text().splitlines()]
    assert {(a["item"], a["label"]) for a in kept} == {(one, "wrong fact"), (four, "made up")}
    metrics = json.loads((tmp_path / "review/metrics.json").read_text())
    assert metrics["rejects"] == 3 and metrics["agreement"]["alpha"] is None


def test_label_studios_export_is_read_as_it_is_written(tmp_path: Path) -> None:
    # Label Studio 1.x: completed_by an id or an object; results by control; skipped tasks.
    def result(name: str, kind: str, value: dict) -> dict:
        return {"id": "x1", "type": kind, "value": value, "origin": "manual", "to_name": "answer", "from_name": name}

    full = [result("class", "choices", {"choices": ["format"]}), result("comment", "textarea", {"text": ["a", "b"]}),
            result("corrected", "textarea", {"text": ["42"]})]  # fmt: skip
    export = [
        {"id": 1, "data": {"item": "i1", "reviewer": "reviewer-1"}, "predictions": [], "annotations": [
            {"id": 9, "completed_by": 10, "was_cancelled": False, "lead_time": 4.2, "result": full},
            {"id": 10, "completed_by": {"id": 3, "email": "a@b.c"}, "result": full[:1]},
            {"id": 11, "completed_by": 4, "was_cancelled": True, "result": []}]},
        {"id": 2, "data": {"item": "i2"}, "annotations": [{"result": full[1:]}]},
        {"id": 3, "data": {"item": "i3"}, "annotations": [
            {"result": [result("class", "choices", {"choices": ["format", "other"]})]}]},
        {"id": 4, "data": {"item": "i4"}, "annotations": []},
    ]  # fmt: skip
    path = tmp_path / "project-1.json"
    path.write_text(json.dumps(export))
    one, two, three, four = answers.read(path)
    assert isinstance(one, answers.Answer) and isinstance(two, answers.Answer)
    assert (one.item, one.reviewer, one.label, one.corrected, one.comment) == ("i1", "10", "format", "42", "a\nb")
    assert (two.reviewer, two.label, two.comment) == ("a@b.c", "format", "")
    assert isinstance(three, answers.Reject) and three.reason == "a correction or comment, and no class"
    assert isinstance(four, answers.Reject) and four.reason == "more than one class"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_save_it(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "mine.csv"
    lines = [["Item", "prompt", "class", "comment"], ["i1", '"a, b; c"', "none", '"two\nlines"']]
    path.write_bytes(("\ufeff" + "\r\n".join(separator.join(line) for line in lines)).encode())
    (answer,) = answers.read(path)
    assert isinstance(answer, answers.Answer)
    assert (answer.item, answer.label, answer.comment, answer.reviewer) == ("i1", "none", "two\nlines", "mine")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[1, 2]", "no tasks"),
        (b"{bad", "not readable as JSON"),
        (b"id,label\n1,2\n", "no table with columns item and class"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "no table"),
    ],
)
def test_a_file_that_is_neither_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        answers.read(path)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: b"item,class\n" + t.encode("utf-8", "replace")))
@settings(deadline=None)  # the first call may be slow on a busy machine
def test_no_bytes_make_the_readers_fail_but_with_a_line(content: bytes) -> None:
    with contextlib.suppress(UserError):
        answers.parse(content, "any")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["result", "from_name", "value", "choices", "text", "completed_by"]), inner, max_size=4
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(st.fixed_dictionaries({"data": st.fixed_dictionaries({"item": JSON})}, optional={"annotations": JSON})))
@settings(deadline=None)
def test_no_json_makes_the_reader_fail(tasks: list[dict]) -> None:
    answers.parse(json.dumps(tasks).encode(), "any")


def test_annotations_of_another_shape_are_no_judgements() -> None:
    odd = [{"result": 3}, {"result": [4, {"from_name": "class", "value": 5}]}, {"result": None}, 6]
    for shape in (odd, 1, "x", {"a": 1}):
        found = answers.parse(json.dumps([{"data": {"item": "i"}, "annotations": shape}]).encode(), "any")
        assert all(isinstance(entry, answers.Reject) for entry in found)


def test_an_import_does_not_name_the_machine(exported: Path, tmp_path: Path) -> None:
    file = judged(tmp_path / "a.csv", [(i, "none", "r1") for i in key(exported)])
    assert imported(tmp_path, exported, file) == 0
    config = json.loads((tmp_path / "review/manifest.json").read_text())["config"]
    assert set(config["contents"]) == {"a.csv"} and "files" not in config


def test_files_that_changed_are_read_again(exported: Path, tmp_path: Path) -> None:
    for label in ("none", "format"):
        file = judged(tmp_path / "a.csv", [(i, label, "r1") for i in key(exported)])
        assert imported(tmp_path, exported, file) == 0
        told = json.loads((tmp_path / "review/review.json").read_text())
        assert set(told["all"]["classes"]) == {label}


def test_missing_files_are_one_line(exported: Path, tmp_path: Path, capsys) -> None:
    assert imported(tmp_path, exported, tmp_path / "none.csv") == 2
    assert "no such file" in capsys.readouterr().err
    assert imported(tmp_path, exported) == 1
    assert "no files to import" in capsys.readouterr().err
