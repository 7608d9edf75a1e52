"""Own definitions: prompts pinned, scores against hand-computed examples and the rules of the authors' scripts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval import engine
from headwater_eval.answers import best, exact, f1, leave_one_out, normalise
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.hub import read_items
from headwater_eval.lm import HeadwaterLM
from headwater_eval.reading import (
    ask_coqa,
    ask_quac,
    best_threshold,
    human_f1,
    parse_coqa,
    parse_quac,
    parse_record,
    parse_squad,
    quac_f1,
    quac_scores,
    score_coqa,
    score_quac,
    score_squad,
    squadv2_scores,
    valid_answers,
)
from headwater_eval.scores import sample_rows, scores_of
from headwater_eval.tasks import benchmark_task

LEFT_OUT_OF_RESULTS = ("custom_dataset", "fewshot_config")  # by `evaluate`


class Parrot(HeadwaterLM):
    """Writes one fixed answer to everything; log-likelihoods are the bigram model's."""

    def __init__(self, bigram, answer: str):
        super().__init__(bigram)
        self.answer = answer

    def generate_until(self, requests: list, disable_tqdm: bool = True) -> list[str]:
        self.asked = [request.args[0] for request in requests]
        self.options = requests[0].args[1]
        return [self.answer] * len(requests)


def items_of(name: str, rows: list[dict], folder: Path) -> list[dict]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows))
    items, rejects = read_items(BENCHMARKS[name], [path], name)
    assert not rejects
    return items


def run(name: str, items: list[dict], lm) -> tuple[list[dict], dict]:
    benchmark = BENCHMARKS[name]
    results = engine.evaluate(lm, {name: benchmark_task(benchmark, items)}, bootstrap_iters=0)
    logged = results["samples"][name]
    config = {key: value for key, value in results["configs"][name].items() if key not in LEFT_OUT_OF_RESULTS}
    assert " at 0x" not in json.dumps(config, default=str)  # an address would differ from run to run
    rows = (benchmark.rows or sample_rows)(benchmark, items, logged)
    return rows, (benchmark.scores or scores_of)(benchmark, items, rows)


# --- SQuAD's normalisation and F1 ---


@pytest.mark.parametrize(
    ("answer", "same"),
    [("The Norse, leader!", "norse leader"), ("a  cat an' the", "cat"), ("U.S.A.", "usa"), ("theatre", "theatre")],
)
def test_case_punctuation_articles_and_blanks_do_not_count(answer: str, same: str) -> None:
    assert normalise(answer) == same


def test_f1_by_hand() -> None:
    assert f1("the cat sat", "a cat sat down") == pytest.approx(2 * 2 / (2 + 3))  # cat sat | cat sat down
    assert f1("cat cat", "cat") == pytest.approx(2 / 3)  # bags, not sets
    assert f1("", "the") == 1 and f1("", "x") == 0 and f1("x", "") == 0 and exact("The end.", "end") == 1
    assert best(f1, ["dog", "cat"], "cat") == 1


@given(st.text(), st.text())
def test_f1_is_symmetric_at_most_one_and_one_where_exact(a: str, b: str) -> None:
    assert f1(a, b) == pytest.approx(f1(b, a)) and 0 <= f1(a, b) <= 1
    assert exact(a, b) <= f1(a, b) and f1(a, a) == 1


def test_one_reference_is_left_out_at_a_time() -> None:
    """CoQA's script: answers a, a, b; the answer b agrees with b unless b is left out: (1 + 1 + 0) / 3."""
    assert leave_one_out(exact, ["a1", "a1", "b"], "b") == pytest.approx(2 / 3)
    assert leave_one_out(exact, ["a1", "a1", "b"], "a1") == 1
    assert leave_one_out(exact, ["a1"], "a1") == 1


# --- SQuAD ---

SQUAD = [
    {"id": "1", "title": "Rivers", "context": "The Rhine is long.", "question": "What is long?",
     "answers": {"text": ["The Rhine", "Rhine"], "answer_start": [0, 4]}},
    {"id": "2", "title": "Rivers", "context": "The Rhine is long.", "question": "What is short?",
     "answers": {"text": [], "answer_start": []}},
]  # fmt: skip
ARTICLE = {
    "title": "Rivers",
    "paragraphs": [
        {
            "context": "The Rhine is long.",
            "qas": [
                {"id": "1", "question": "What is long?", "is_impossible": False,
                 "answers": [{"text": "The Rhine", "answer_start": 0}, {"text": "Rhine", "answer_start": 4}]},
                {"id": "2", "question": "What is short?", "is_impossible": True, "answers": [],
                 "plausible_answers": [{"text": "Rhine", "answer_start": 4}]},
            ],
        }
    ],
}  # fmt: skip


def test_rows_of_the_hub_and_the_authors_file_give_the_same_questions() -> None:
    assert [fields for row in SQUAD for fields in parse_squad(row)] == parse_squad(ARTICLE)


def test_squadv2_is_asked_as_lm_eval_asks_it_and_weighs_that_there_is_no_answer(tmp_path: Path, bigram) -> None:
    items, lm = items_of("squadv2", SQUAD, tmp_path), Parrot(bigram, " Rhine\nand more")
    rows, scores = run("squadv2", items, lm)
    question = "Title: Rivers\n\nBackground: The Rhine is long.\n\nQuestion: What is long?\n\nAnswer:"
    assert lm.asked[0] == rows[0]["prompt"] == question and lm.options["until"] == ["\n"]
    expected = math.exp(HeadwaterLM(bigram).loglikelihood([_Request((question, " unanswerable"))])[0][0])
    assert rows[0]["metrics"]["no_answer"] == pytest.approx(expected)
    assert rows[0]["response"] == " Rhine\nand more"
    with_shot = benchmark_task(
        BENCHMARKS["squad"], items, 1, items_of("squad", [{**SQUAD[0], "context": "o"}], tmp_path)
    )
    assert "\n\nAnswer: The Rhine\n\nTitle" in with_shot.fewshot_context(with_shot.eval_docs[0], 1)
    assert scores["squadv2"]["metric"] == "f1" and scores["squadv2:unanswerable_exact"]["n"] == 1


class _Request:
    def __init__(self, args: tuple):
        self.args = args


def test_writing_unanswerable_says_that_there_is_no_answer() -> None:
    held, none = ({"answers": ["Rhine"]}, {"answers": ["unanswerable"]})
    assert score_squad(none, " Unanswerable.") == {"exact": 1, "f1": 1} == score_squad(held, " the Rhine")
    assert score_squad(held, "unanswerable") == {"exact": 0, "f1": 0} == score_squad(none, "Rhine")


def test_the_best_threshold_is_the_official_scripts() -> None:
    """By hand: no answer everywhere scores 2 of 4. Taking answers in the order of P(no answer) 0.1 right, 0.2 wrong and
    unanswerable, 0.3 right, 0.9 unanswerable: 3, 2, 3, 2 of 4; the first best is 3 at 0.1."""
    values, no_answer = np.array([1.0, 0, 1, 0]), np.array([0.1, 0.2, 0.3, 0.9])
    assert best_threshold(values, no_answer, np.array([0, 1, 0, 1])) == (0.75, 0.1)
    assert best_threshold(values * 0, no_answer, np.array([0, 1, 0, 1])) == (0.5, 0.0)


def test_squadv2s_scores_by_hand() -> None:
    rows = [
        {"doc_id": str(i), "cluster": cluster, "category": kind, "metrics": {"f1": f, "exact": e, "no_answer": p}}
        for i, (cluster, kind, f, e, p) in enumerate(
            [("x", "answerable", 0.5, 0.0, 0.1), ("x", "unanswerable", 0.0, 0.0, 0.8),
             ("y", "answerable", 1.0, 1.0, 0.2), ("y", "unanswerable", 1.0, 1.0, 0.9)]
        )
    ]  # fmt: skip
    scores = squadv2_scores(BENCHMARKS["squadv2"], [], rows)
    values = {name: row["value"] for name, row in scores.items()}
    assert values == {
        "squadv2": 0.625, "squadv2:exact": 0.5, "squadv2:answerable_f1": 0.75, "squadv2:unanswerable_f1": 0.5,
        "squadv2:answerable_exact": 0.5, "squadv2:unanswerable_exact": 0.5, "squadv2:best_f1": 0.875,
        "squadv2:best_exact": 0.75,
    }  # fmt: skip
    assert all(row["low"] <= row["value"] <= row["high"] for row in scores.values() if row["low"] is not None)


# --- CoQA ---

STORY = {
    "id": "s1", "source": "mctest", "story": "Cotton the kitten was white.",
    "questions": {"input_text": ["Who?", "What colour?"], "turn_id": [1, 2]},
    "answers": {"input_text": ["Cotton", "white"], "answer_start": [0, 0], "answer_end": [1, 1], "turn_id": [1, 2]},
    "additional_answers": {
        str(i): {"input_text": ["a kitten", more], "turn_id": [1, 2]} for i, more in enumerate(["It was white", "red"])
    },
}  # fmt: skip


def test_every_turn_of_coqa_is_an_item_asked_with_the_turns_before_it(tmp_path: Path, bigram) -> None:
    items, lm = items_of("coqa", [STORY], tmp_path), Parrot(bigram, " white\nQ: x")
    assert [item["id"] for item in items] == ["coqa-00001-00", "coqa-00001-01"]
    rows, scores = run("coqa", items, lm)
    assert lm.asked[1] == "Cotton the kitten was white.\n\nQ: Who?\n\nA: Cotton\n\nQ: What colour?\n\nA:"
    assert lm.options["until"] == ["\nQ:"] and rows[0]["cluster"] == rows[1]["cluster"]
    # references white, It was white, red: without each in turn the best F1 is 1/2 (was 2·1/4), 1, 1
    assert rows[1]["score"] == pytest.approx((0.5 + 1 + 1) / 3) and rows[1]["metrics"]["em"] == pytest.approx(2 / 3)
    assert rows[0]["score"] == 0 and scores["coqa"]["value"] == pytest.approx((2.5 / 3) / 2)
    assert scores["coqa:mctest"]["n"] == scores["coqa"]["n"] == 2


def test_the_authors_file_of_coqa_reads_like_the_hubs_rows() -> None:
    def listed(turns: dict) -> list[dict]:
        return [{"input_text": text, "turn_id": i + 1} for i, text in enumerate(turns["input_text"])]

    own = {**STORY, "questions": listed(STORY["questions"]), "answers": listed(STORY["answers"]),
           "additional_answers": {k: listed(v) for k, v in STORY["additional_answers"].items()}}  # fmt: skip
    assert parse_coqa(own) == parse_coqa(STORY)
    with pytest.raises(ValueError, match="differ in number"):
        parse_coqa({**STORY, "answers": {"input_text": ["Cotton"]}})


def test_the_last_turn_of_coqa_is_asked_as_lm_eval_asks_it() -> None:
    """lm-eval's doc_to_text, as its source has it (its module cannot be imported beside transformers 5)."""
    source = (engine.STOCK_TASKS / "coqa/utils.py").read_text()
    namespace: dict = {}
    start = source.index("def doc_to_text")
    exec("from itertools import zip_longest\n" + source[start : source.index("def doc_to_target")], namespace)
    assert ask_coqa(parse_coqa(STORY)[-1]) == namespace["doc_to_text"](STORY)
    start = source.index("def compute_scores")
    stock: dict = {"squad_metrics": SimpleNamespace(compute_exact=exact, compute_f1=f1)}
    exec(source[start : source.index("def process_results")], stock)
    for written in ("white", "it was red", ""):
        item = parse_coqa(STORY)[-1]
        assert score_coqa(item, written) == pytest.approx(stock["compute_scores"](item["answers"], written))


# --- QuAC ---

DIALOGUE = {
    "dialogue_id": "d1", "wikipedia_page_title": "Rhine", "section_title": "Course",
    "context": "It rises in the Alps. CANNOTANSWER", "questions": ["Where does it rise?", "When?"],
    "answers": {"texts": [["the Alps", "in the Alps"], ["CANNOTANSWER", "CANNOTANSWER", "in May"]]},
    "orig_answers": {"texts": ["in the Alps.", "CANNOTANSWER"]},
}  # fmt: skip


def test_every_turn_of_quac_is_asked_with_title_paragraph_and_the_turns_before_it(tmp_path: Path, bigram) -> None:
    items, lm = items_of("quac", [DIALOGUE], tmp_path), Parrot(bigram, " CANNOTANSWER")
    rows, scores = run("quac", items, lm)
    assert lm.asked[1] == (
        "TITLE: Rhine - Course\nPARAGRAPH: It rises in the Alps. CANNOTANSWER\n\n"
        "Q: Where does it rise?\n\nA: in the Alps.\n\nQ: When?\n\nA:"
    )
    assert rows[1]["answers"] == ["CANNOTANSWER"] and [row["score"] for row in rows] == [0, 1]
    assert scores["quac"]["value"] == 0.5 and scores["quac:heq"]["value"] == 0.5
    assert scores["quac:heq_dialogue"]["value"] == 0 and scores["quac:heq_dialogue"]["n"] == 1


def test_the_authors_file_of_quac_reads_like_the_hubs_rows() -> None:
    turns = zip(DIALOGUE["questions"], DIALOGUE["answers"]["texts"], DIALOGUE["orig_answers"]["texts"], strict=True)
    qas = [
        {"id": f"d1_q#{i}", "question": question, "answers": [{"text": text, "answer_start": 0} for text in texts],
         "orig_answer": {"text": original, "answer_start": 0}, "yesno": "x", "followup": "n"}
        for i, (question, texts, original) in enumerate(turns)
    ]  # fmt: skip
    paragraph = {"id": "d1", "context": DIALOGUE["context"], "qas": qas}
    own = {"title": "Rhine", "section_title": "Course", "paragraphs": [paragraph]}
    assert parse_quac(own) == parse_quac(DIALOGUE)
    assert ask_quac(parse_quac(own)[0]).endswith("\n\nQ: Where does it rise?\n\nA:")


def test_quacs_official_rules() -> None:
    assert valid_answers(["CANNOTANSWER", "x"]) == ["CANNOTANSWER"]  # half of the people found none
    assert valid_answers(["CANNOTANSWER", "x", "y"]) == ["x", "y"]
    assert quac_f1("CANNOTANSWER", "CANNOTANSWER") == 1 and quac_f1("CANNOTANSWER", "cannotanswer") == 0
    assert human_f1(["x"]) == 1 and human_f1(["red cat", "cat", "dog"]) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    # the answer cat: without red cat 1, without cat 2/3, without dog 1; people 4/9: it reaches them
    assert score_quac({"answers": ["red cat", "cat", "dog"]}, " cat\nQ: more") == pytest.approx(
        {"f1": (1 + 2 / 3 + 1) / 3, "heq": 1.0, "human_f1": 4 / 9}
    )


def test_questions_on_which_people_disagree_count_only_in_the_unfiltered_f1() -> None:
    items = [{"id": str(i), "dialogue": d} for i, d in enumerate("aab")]
    rows = [{"doc_id": str(i), "cluster": items[i]["dialogue"], "metrics": {"f1": f, "heq": h, "human_f1": p}}
            for i, (f, h, p) in enumerate([(0.5, 1.0, 0.5), (0.1, 0.0, 0.39), (0.2, 0.0, 0.9)])]  # fmt: skip
    scores = quac_scores(BENCHMARKS["quac"], items, rows)
    assert scores["quac"]["value"] == pytest.approx(0.35) and scores["quac"]["n"] == 2
    assert scores["quac:unfiltered_f1"]["value"] == pytest.approx(0.8 / 3)
    assert scores["quac:heq_dialogue"]["value"] == 0.5  # dialogue a: its only question that counts reaches people


# --- ReCoRD, SNLI ---

RECORD = {"passage": "Ann met Bob.\n@highlight\nAnn won\n@highlight\nBob lost", "query": "@placeholder beat Bob",
          "entities": ["Bob", "Ann", "Ann"], "answers": ["Ann"], "idx": {"passage": 0, "query": 0}}  # fmt: skip


def test_record_is_asked_as_lm_eval_asks_it_and_scored_by_the_likeliest_entity(tmp_path: Path, bigram) -> None:
    items = items_of("record", [RECORD], tmp_path)
    task = benchmark_task(BENCHMARKS["record"], items)
    logged = engine.evaluate(HeadwaterLM(bigram), {"record": task}, bootstrap_iters=0)["samples"]["record"]
    prompt = "Ann met Bob.\n\n  - Ann won.\n  - Bob lost.\n"
    assert [tuple(a) for a in logged[0]["arguments"]] == [(prompt, "   - Ann beat Bob"), (prompt, "   - Bob beat Bob")]
    source = (engine.STOCK_TASKS / "super_glue/record/util.py").read_text()
    namespace: dict = {}
    exec(source[source.index("def doc_to_text") : source.index("def process_docs")], namespace)
    doc = {**RECORD, "entities": sorted(set(RECORD["entities"]))}
    assert namespace["doc_to_text"](doc) == prompt
    assert [f" {choice}" for choice in namespace["doc_to_choice"](doc)] == [a[1] for a in logged[0]["arguments"]]
    lls = [response[0] for response in logged[0]["filtered_resps"]]
    assert logged[0]["em"] == float(lls[0] > lls[1]) == logged[0]["f1"]
    assert items[0]["text"] == "Ann beat Bob" and parse_record(RECORD)[0]["answers"] == ["Ann"]


def test_snli_has_anlis_prompt_and_pairs_without_agreement_are_set_aside(tmp_path: Path, bigram) -> None:
    rows = [{"premise": "A man runs.", "hypothesis": "A man moves.", "label": label} for label in (0, 2, -1)]
    path = tmp_path / "snli.json"
    path.write_text(json.dumps([*rows, {"gold_label": "neutral", "sentence1": "A.", "sentence2": "B."}]))
    items, rejects = read_items(BENCHMARKS["snli"], [path], "snli")
    assert [item["label"] for item in items] == [0, 2, 1] and "did not agree" in rejects[0].reason
    task = benchmark_task(BENCHMARKS["snli"], items)
    arguments = engine.evaluate(HeadwaterLM(bigram), {"snli": task}, bootstrap_iters=0)["samples"]["snli"][0][
        "arguments"
    ]
    anli = engine.ConfigurableTask(config={
        **engine.load_yaml(engine.STOCK_TASKS / "anli/anli_r1.yaml"), "tag": None, "dataset_path": None,
        "training_split": None, "validation_split": None, "test_split": "test",
        "custom_dataset": lambda **_: {"test": engine.Dataset.from_list(rows[:1])}})  # fmt: skip
    prompt = anli.fewshot_context(anli.eval_docs[0], 0)
    assert [tuple(a) for a in arguments] == [(prompt, f" {word}") for word in ("True", "Neither", "False")]
