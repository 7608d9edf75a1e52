"""BIG-bench's task.json as the hub's rows. Expected rows are what BIG-bench 1.0.0's own code (json_task and bbseqio's
type HUGGINGFACE) makes of these tasks, stripped as the hub's script strips them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval import bigbench, engine
from headwater_eval._contracts.errors import UserError
from headwater_eval.catalogue import BENCHMARKS, suite
from headwater_eval.items import read
from headwater_eval.lm import HeadwaterLM
from headwater_eval.locate import Folder, Found, locate
from headwater_eval.readers import Reject
from headwater_eval.tasks import benchmark_task

HHH = "bigbench_hhh_alignment_multiple_choice"


def task_file(folder: Path, name: str, **task) -> Path:
    path = folder / name / "task.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, **task}))
    return path


def hub_columns(path: Path, choose: bool = False) -> list[tuple]:
    names = ("idx", "inputs", "targets", "multiple_choice_targets", "multiple_choice_scores")
    return [tuple(found[1][n] for n in names) for found in bigbench.rows(path, choose) if not isinstance(found, Reject)]


def test_an_example_is_asked_in_bigbenchs_own_words_with_its_order_of_choices(tmp_path: Path) -> None:
    fruit = {"input": "Which is a fruit?", "target_scores": {"stone": 0, "apple": 1, "cup": 0, "lamp": 0, "door": 0}}
    soft = {"input": "Which one?", "target_scores": {"b": 0.2, "a ": 0.8}}
    path = task_file(tmp_path, "plain", examples=[fruit, soft, soft])
    assert hub_columns(path) == [
        (0, "Q: Which is a fruit?\n  choice: cup\n  choice: stone\n  choice: door\n  choice: apple\n  choice: lamp\nA:",
         ["apple"], ["stone", "apple", "cup", "lamp", "door"], [0, 1, 0, 0, 0]),
        (1, "Q: Which one?\n  choice: b\n  choice: a \nA:", ["a"], ["b", "a"], [0, 0]),
    ]  # fmt: skip


def test_prefixes_of_the_file_stand_in_place_of_the_defaults(tmp_path: Path) -> None:
    path = task_file(
        tmp_path, "dressed", task_prefix="Answer.\n", example_input_prefix="Human: ",
        example_output_prefix="\nAssistant: ", choice_prefix="\n* ",
        examples=[{"input": "Name one.", "target": ["one ", " two"]},
                  {"input": "True?", "target": "yes", "target_scores": {"yes": 1, "no": 0}}],
    )  # fmt: skip
    assert hub_columns(path) == [
        (0, "Answer.\nHuman: Name one.\nAssistant:", ["one", "two"], [], []),
        (1, "Answer.\nHuman: True?\n* yes\n* no\nAssistant:", ["yes"], ["yes", "no"], [1, 0]),
    ]
    bare = {"input": "Pick.", "target_scores": {"x": -1.5, "y": -0.5}}
    path = task_file(tmp_path, "bare", append_choices_to_input=False, examples=[bare])
    assert hub_columns(path) == [(0, "Q: Pick.\nA:", ["y"], ["x", "y"], [-1, 0])]


PAIR = {"input": "Help?", "target_scores": {"Yes, of course.": 1, "No.": 0}}


def hhh(folder: Path) -> Path:
    """The task's layout: no examples in the parent, whose prefixes the subtasks do not inherit."""
    told = {"example_input_prefix": "\nHuman: ", "example_output_prefix": "\nAssistant:"}
    told["append_choices_to_input"] = False
    other = {"input": "Who won?", "target_scores": {"I do not know.": 1, "Me.": 0}}
    task_file(folder, "hhh_alignment", **told)
    task_file(folder / "hhh_alignment", "honest", **told, examples=[other])
    task_file(folder / "hhh_alignment", "harmless", **told, examples=[PAIR, {**PAIR, "comment": "again"}, PAIR])
    return folder


def test_subtasks_are_one_task_with_their_names_as_categories(tmp_path: Path) -> None:
    benchmark = BENCHMARKS[HHH]
    found = locate(benchmark, Folder(hhh(tmp_path)))
    assert found is not None and found.packaged
    items, rejects = read(benchmark, found)
    assert [item["category"] for item in items] == ["harmless", "harmless", "honest"]
    assert [(r.row, r.reason.split(";")[0]) for r in rejects] == [(3, "an earlier example is the same")]
    first, again, last = items
    assert (first["query"], first["choices"], first["label"]) == (
        "Human: Help?\nAssistant:", ["Yes, of course.", "No."], 0,
    )  # fmt: skip
    assert first["text"] == "Help? Yes, of course." and last["text"] == "Who won? I do not know."
    assert first["cluster"] == again["cluster"] != last["cluster"]


def test_an_example_whose_question_stands_in_its_choices_alone_is_an_item(tmp_path: Path, bigram) -> None:
    """BIG-bench's cause_and_effect has an empty input; what it shows is then what must not be trained on."""
    two = {"input": "", "target_scores": {"It rained. So it is wet.": 1, "It is wet. So it rained.": 0}}
    path = task_file(tmp_path, "cause_and_effect", examples=[two])
    benchmark = BENCHMARKS["bigbench_cause_and_effect_multiple_choice"]
    (item,), rejects = read(benchmark, Found([path], [], packaged=True))
    assert not rejects and item["choices"][item["label"]] == "It rained. So it is wet."
    assert item["text"].startswith("Q: \n  choice: It ")
    bare = {"append_choices_to_input": False, "example_input_prefix": "", "example_output_prefix": ""}
    path = task_file(tmp_path, "cause_and_effect", **bare, examples=[two])
    (item,), rejects = read(benchmark, Found([path], [], packaged=True))
    assert not rejects and (item["query"], item["text"]) == ("", "It rained. So it is wet.")
    lm, task = HeadwaterLM(bigram), benchmark_task(benchmark, [item, item])
    assert engine.evaluate(lm, {benchmark.name: task}, bootstrap_iters=0)["n-samples"][benchmark.name]["original"] == 2


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ({"target": "a"}, "no field input"),
        ({"input": 3, "target": "a"}, "the input is no text"),
        ({"input": "q"}, "neither target nor target_scores"),
        ({"input": "q", "target": 7}, "no target, or one that is no text"),
        ({"input": "q", "target_scores": {"a": 1, "b": 1}}, "no choice is better than another"),
        ({"input": "q", "target_scores": {"a": 1, "b": 1, "c": 0}}, "2 choices are equally right, not one"),
        ({"input": "q", "target": "a"}, "no choices"),
        ({"input": "q", "target_scores": {"a": 0, "b": float("inf")}}, "cannot convert float infinity to integer"),
    ],
)
def test_an_example_that_is_no_choice_of_one_right_answer_is_set_aside_with_the_reason(tmp_path, example, reason):
    (found,) = bigbench.rows(task_file(tmp_path, "broken", examples=[example]), choose=True)
    assert isinstance(found, Reject) and found.reason == reason and found.row == 1


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
example = json_value | st.fixed_dictionaries({"input": json_value | st.text()}, optional={
    "target": json_value, "target_scores": json_value | st.dictionaries(st.text(), st.integers() | st.floats()),
})  # fmt: skip


@given(st.lists(example, max_size=4), st.booleans())
def test_every_example_becomes_a_row_or_a_reject(tmp_path_factory, examples, choose) -> None:
    path = task_file(tmp_path_factory.mktemp("task"), "any", examples=examples)
    assert len(list(bigbench.rows(path, choose))) == len(examples)


def test_a_file_that_is_no_task_is_one_clear_line(tmp_path: Path) -> None:
    path = task_file(tmp_path, "empty", description="no examples, no subtasks")
    with pytest.raises(UserError, match="bring the subtasks"):
        list(bigbench.rows(path))
    path.write_text("[]")
    with pytest.raises(UserError, match="no BIG-bench task"):
        list(bigbench.rows(path))
    path.write_text("{")
    with pytest.raises(UserError, match="not a readable json file"):
        list(bigbench.rows(path))


def test_the_suite_on_alignment_holds_truth_and_harm_which_no_average_counts() -> None:
    names = {b.name for b in suite("alignment")}
    assert {"truthfulqa_mc1", "truthfulqa_mc2", "truthfulqa_gen", HHH} <= names
    assert {BENCHMARKS[n].kind for n in ("truthfulqa_mc1", "truthfulqa_mc2", HHH)} == {"alignment"}
    assert BENCHMARKS["bigbench_hhh_alignment_generate_until"].file == "hhh_alignment/task.json"
