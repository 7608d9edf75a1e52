"""What counts as a ranking, what is refused and why, and that ways out and back lose nothing."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.labels import argilla, label_studio, page, table
from headwater_align.labels.rankings import Ranking, Reject, accepted
from headwater_align.labels.tasks import Task, assign, visible

HOSTILE = '</script><img src=x onerror="alert(1)">&amp;\n=1+1\u2028\u202eabc\u0000'
RECORD = {
    "id": "r1", "prompt": [{"role": "user", "content": f"Why? {HOSTILE}"}],
    "responses": ["=SUM(A1)", HOSTILE, "So.", "Thus."], "policies": ["sft", "ppo", None, "ppo"],
    "source": "s", "licence": "x", "split": "train", "round": "r1", "batch": "r1-001",
}  # fmt: skip
TASK = Task.of(RECORD, 1, ["ann", "bob"])
TASKS = {TASK.task: TASK}
A, B, C, D = TASK.names
WHOLE = {A: 1, B: 2, C: 2, D: 3}


def said(ranks=WHOLE, task=TASK.task, labeller="ann", **more):
    return Ranking(task, labeller, ranks, "f.json", 1, **more)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (said(task="other"), "no task of this sheet"),
        (said(labeller=" "), "no labeller"),
        (said({A: 1, B: 2}), "ranks 2 of 4 responses"),
        (said({**WHOLE, "x": 1}), "a response that the task has not"),
        (said({**WHOLE, A: 0}), "no whole number from 1"),
        (said({**WHOLE, A: 1.5}), "no whole number from 1"),
        (said({**WHOLE, A: True}), "no whole number from 1"),
        (said({**WHOLE, A: "best"}), "no whole number from 1"),
        (said(confidence=75), "no number from 0 to 1"),
        (said(confidence="sure"), "no number from 0 to 1"),
        (Reject("f.json", 2, "", "", "no ranking"), "no ranking"),
    ],
)
def test_what_cannot_count_is_refused_with_a_reason(entry, reason):
    made = accepted([entry, said(labeller="bob")], TASKS)
    assert [r.labeller for r in made.rankings] == ["bob"]
    assert len(made.rejects) == 1 and reason in made.rejects[0].reason
    assert "SUM" not in made.rejects[0].reason and "script" not in made.rejects[0].reason


def test_ranks_become_dense_and_ties_stay():
    assert accepted([said({A: 2, B: 5, C: 5, D: 9})], TASKS).rankings[0].ranks == {A: 1, B: 2, C: 2, D: 3}


def test_of_two_contradictory_rankings_the_later_in_time_counts_in_whatever_order_they_come():
    early, late = said(at="2026-01-01T09:00:00Z"), said({A: 4, B: 3, C: 2, D: 1}, at="2026-01-01T10:30:00+01:00")
    for given_ in ([early, late], [late, early]):
        made = accepted(given_, TASKS)
        assert made.rankings[0].ranks[D] == 1 and made.replaced == 1 and made.repeated == 0
        assert "later" in made.rejects[0].reason


def test_without_times_the_later_file_counts_and_the_same_twice_is_no_contradiction():
    other = said({A: 4, B: 3, C: 2, D: 1})
    assert accepted([said(), other], TASKS).rankings[0].ranks[D] == 1
    made = accepted([said(), said()], TASKS)
    assert made.repeated == 1 and made.replaced == 0 and not made.rejects and len(made.rankings) == 1


def test_several_labellers_of_a_task_stay_apart():
    assert [r.labeller for r in accepted([said(), said(labeller="bob")], TASKS).rankings] == ["ann", "bob"]


def fill_page(ranks, sure, comment):
    entry = {"task": TASK.task, "ranks": ranks, "confidence": sure, "comment": comment, "skipped": "", "at": ""}
    return page.read({"version": 1, "labeller": "ann", "rankings": [entry]}, "ann.json")


def fill_table(ranks, sure, comment):
    rows = list(csv.DictReader(io.StringIO(table.write([TASK], "ann", 1), newline="")))
    for row in rows:
        row |= {"rank": ranks[row["name"]], "confidence": sure, "comment": comment}
    out = io.StringIO()
    writer = csv.DictWriter(out, table.COLUMNS, delimiter=";")  # as a German spreadsheet saves it
    writer.writeheader()
    writer.writerows(rows)
    return table.read(out.getvalue(), "ann.csv")


def fill_label_studio(ranks, sure, comment):
    (task,) = json.loads(label_studio.write([TASK], "ann", 1))
    buckets = {str(rank): [n for n in ranks if ranks[n] == rank] for rank in set(ranks.values())}
    values = {
        "rank": {"ranker": {"_": [], **buckets}},
        "confidence": {"choices": [str(sure)]},
        "comment": {"text": [comment]},
    }
    result = [{"from_name": name, "value": value} for name, value in values.items()]
    return label_studio.read([{**task, "annotations": [{"result": result}]}], "ann.json")


def fill_argilla(ranks, sure, comment):
    (record,) = json.loads(argilla.write([TASK], "ann", 1))
    shown = record["metadata"]["names"]
    values = {
        "rank": [{"value": f"response-{i}", "rank": ranks[name]} for i, name in enumerate(shown, 1)],
        "confidence": str(sure),
        "comment": comment,
    }
    responses = {name: [{"value": value, "user_id": None}] for name, value in values.items()}
    return argilla.read([{**record, "responses": responses}], "ann.json")


@pytest.mark.parametrize("fill", [fill_page, fill_table, fill_label_studio, fill_argilla])
def test_a_ranking_comes_back_the_same_whichever_way_it_was_made(fill):
    made = accepted(fill({A: 3, B: 1, C: 1, D: 2}, 0.75, "close"), TASKS)
    assert not made.rejects
    (ranking,) = made.rankings
    assert ranking.ranks == {A: 3, B: 1, C: 1, D: 2} and ranking.labeller == "ann"
    assert ranking.confidence == 0.75 and ranking.comment == "close"


def test_label_studios_accounts_skips_and_half_done_tasks():
    (task,) = json.loads(label_studio.write([TASK], "ann", 1))

    def annotation(buckets, **more):
        return {"result": [{"from_name": "rank", "value": {"ranker": buckets}}], **more}

    exported = [
        {**task, "annotations": [
            annotation({"1": [A], "2": [B, C, D]}, completed_by={"id": 7, "email": "eve@x"}),
            annotation({}, was_cancelled=True, completed_by=3),
            annotation({"1": [A], "_": [B, C, D]}, completed_by=4),
            annotation({"1": [A], "2": [A]}, completed_by=5),
        ]},
        {"id": 1},
    ]  # fmt: skip
    made = accepted(label_studio.read(exported, "x.json"), TASKS)
    assert [(r.labeller, r.skipped) for r in made.rankings] == [("3", "cancelled in Label Studio"), ("eve@x", "")]
    assert sorted(r.reason.split(";")[0] for r in made.rejects) == [
        "no task with data", "one response under two ranks", "ranks 1 of 4 responses"
    ]  # fmt: skip


def test_argillas_suggestions_drafts_and_discarded_records_are_no_rankings():
    (record,) = json.loads(argilla.write([TASK], "ann", 1))
    ranks = [{"value": f"response-{i}", "rank": i} for i in range(1, 5)]
    responses = [
        {"value": ranks, "user_id": name, "status": name} for name in ("submitted", "draft", "discarded")
    ]  # fmt: skip
    exported = [{**record, "suggestions": {"rank": {"value": ranks}}, "responses": {"rank": responses}}]
    made = accepted(argilla.read(exported, "x.json"), TASKS)
    assert [(r.labeller, bool(r.skipped)) for r in made.rankings] == [("discarded", True), ("submitted", False)]


def test_a_table_is_not_ranked_where_nothing_is_filled_in_and_formulas_are_disarmed():
    text = table.write([TASK], "ann", 1)
    assert list(table.read(text, "ann.csv")) == []
    cells = [row["response"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert "'=SUM(A1)" in cells


def test_what_is_handed_out_tells_neither_policy_nor_place():
    for text in (
        page.write([TASK], "ann", 1, "s"), table.write([TASK], "ann", 1), label_studio.write([TASK], "ann", 1),
        argilla.write([TASK], "ann", 1),
    ):  # fmt: skip
        assert "ppo" not in text and "sft" not in text
    many = [Task.of({**RECORD, "id": str(i)}, 1, ["ann"]) for i in range(200)]
    first = [task.shown_to("ann", 1)[0][1] for task in many]
    assert {first.count(response) > 25 for response in RECORD["responses"]} == {True}  # 50 each, were it to chance
    assert any(task.shown_to("ann", 1) != task.shown_to("bob", 1) for task in many)


@given(st.integers(0, 60), st.integers(1, 5), st.floats(0, 1), st.integers(2, 4))
def test_every_task_is_given_out_and_work_is_shared_evenly(tasks, people, overlap, several):
    names = [f"w{i}" for i in range(people)]
    given_ = assign([str(i) for i in range(tasks)], names, overlap, several, seed=1)
    load = [sum(name in who for who in given_) for name in names]
    assert all(given_) and max(load) - min(load) <= 1
    assert sum(len(who) > 1 for who in given_) == (int(tasks * overlap + 1e-9) if people > 1 else 0)


@given(st.text(st.characters(exclude_categories=())))
def test_shown_text_hides_nothing_and_can_be_written_as_utf8(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert not set(shown) & set("\u202e\u200b\u2028\x00\x1b\ufeff")


WORDS = [*TASK.names, TASK.task, "1", "2", "_", "rank", "value", "response-1", "ranker", "0.5"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


@given(anything, anything, anything)
def test_whatever_stands_in_a_field_makes_no_reader_stumble(one, two, three):
    result = [{"from_name": "rank", "value": one}, {"from_name": "rank", "value": {"ranker": two}}, three]
    studio = {"data": {"task": TASK.task, "labeller": two}}
    annotations = [{"result": result, "completed_by": three, "updated_at": one}, {"result": two, "was_cancelled": one}]
    about = {"task": TASK.task, "labeller": one, "names": TASK.names}
    said = [{"value": one, "user_id": two}, {"value": [{"value": "response-1", "rank": three}, two]}, three]
    entry = {"task": TASK.task, "ranks": dict.fromkeys(TASK.names, one), "confidence": two, "at": three}
    found = [
        *label_studio.read([{**studio, "annotations": annotations}, {**studio, "annotations": one}, two], "x.json"),
        *argilla.read([{"metadata": about, "responses": {"rank": said, "confidence": two}}, one], "x.json"),
        *argilla.read([{"metadata": about, "responses": three}, {"metadata": two}], "x.json"),
        *page.read({"version": 1, "labeller": one, "rankings": [entry, two, {"ranks": three}]}, "x.json"),
        *page.read(
            {"version": 1, "labeller": "ann", "rankings": [{**entry, "at": ""}, {**entry, "comment": one}]}, "x"
        ),
    ]
    made = accepted(found, TASKS)
    assert len(made.rejects) + len(made.rankings) + made.repeated == len(found)


@given(st.text(max_size=60))
def test_no_table_makes_a_reader_stumble(text):
    accepted(table.read(f"task,name,rank\n{text}", "x.csv"), TASKS)
