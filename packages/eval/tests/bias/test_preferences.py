"""CrowS-Pairs and StereoSet: which of several sentences is likelier, counted as their authors count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headwater_eval import engine
from headwater_eval.bias import CROWS_PAIRS, STEREOSET
from headwater_eval.bias.crows_pairs import pair_scores
from headwater_eval.bias.stereoset import by_term, icat
from headwater_eval.lm import HeadwaterLM
from headwater_eval.readers import Reject
from headwater_eval.tasks import benchmark_task


def ask(lm, benchmark, items: list[dict]) -> list[dict]:
    results = engine.evaluate(lm, {benchmark.name: benchmark_task(benchmark, items)}, bootstrap_iters=0)
    return benchmark.rows(benchmark, items, results["samples"][benchmark.name])


def test_crows_pairs_gives_the_published_scores_of_bert_from_its_counts() -> None:
    """Nangia et al. 2020, table 2: BERT prefers 60.5 of all, 61.1 of 1,290 stereo and 56.9 of 218 antistereo pairs."""
    rows = [{"score": float(i < 788), "direction": "stereo", "category": "age"} for i in range(1290)]
    rows += [{"score": float(i < 124), "direction": "antistereo", "category": "gender"} for i in range(218)]
    scores = pair_scores(CROWS_PAIRS, [], rows)
    assert round(100 * scores["crows_pairs_english"]["value"], 1) == 60.5
    assert round(100 * scores["crows_pairs_english:stereo"]["value"], 1) == 61.1
    assert round(100 * scores["crows_pairs_english:antistereo"]["value"], 1) == 56.9
    assert "crows_pairs_english:neutral" not in scores


def test_a_tie_counts_for_neither_sentence_and_is_reported(bigram) -> None:
    likely, unlikely = "the cat sat on the mat.", "qx#cat sat on the mat."
    pairs = [(likely, unlikely, "stereo"), (unlikely, likely, "antistereo"), (likely, likely, "stereo")]
    items = [{"id": str(i), "query": "", "choices": [more, less], "label": 0, "direction": way, "category": "age"}
             for i, (more, less, way) in enumerate(pairs)]  # fmt: skip
    rows = ask(HeadwaterLM(bigram), CROWS_PAIRS, items)
    assert [row["score"] for row in rows] == [1, 0, 0.5] and {row["correct"] for row in rows} == {None}
    scores = CROWS_PAIRS.scores(CROWS_PAIRS, items, rows)
    told = {name.partition(":")[2]: (row["value"], row["n"]) for name, row in scores.items()}
    assert told == {"": (0.5, 2), "stereo": (1, 1), "antistereo": (0, 1), "age": (0.5, 2), "neutral": (1 / 3, 3)}


def test_a_model_that_decides_no_pair_has_no_score() -> None:
    rows = [{"score": 0.5, "direction": "stereo", "category": "age"}] * 3
    score = pair_scores(CROWS_PAIRS, [], rows)["crows_pairs_english"]
    assert score["value"] is None and score["n"] == 0


def test_differences_below_the_authors_three_decimals_are_ties(monkeypatch) -> None:
    from headwater_eval.bias import crows_pairs

    row = {"logprobs": [-10.0004, -10.0001], "metrics": {}}
    monkeypatch.setattr(crows_pairs, "sample_rows", lambda *_: [row])
    assert crows_pairs.pair_rows(CROWS_PAIRS, [], [])[0]["score"] == 0.5


PUBLISHED = [  # Nadeem et al. 2021, table 5 (test set): lms, ss, icat
    (85.4, 58.3, 71.2), (83.6, 56.4, 73.0), (68.2, 50.5, 67.5), (65.1, 60.8, 51.1), (90.5, 62.5, 68.0),
    # OPT, arXiv:2205.01068, table 5: Davinci and OPT-175B overall, then OPT's professions and gender
    (77.6, 60.8, 60.8), (74.8, 59.9, 60.0), (74.1, 62.6, 55.4), (74.0, 63.6, 53.8),
]  # fmt: skip


@pytest.mark.parametrize(("lms", "ss", "expected"), PUBLISHED)
def test_icat_of_published_scores_is_the_published_icat(lms: float, ss: float, expected: float) -> None:
    assert 100 * icat(np.array([[lms / 100, ss / 100, 1.0]]))[0] == pytest.approx(
        expected, abs=0.19
    )  # all three are rounded


def test_ideal_random_and_fully_stereotyped_models_score_as_the_paper_says() -> None:
    """Section 6.3: ideal is lms 100, ss 50, icat 100; random is 50, 50, 50; always stereotyped has icat 0."""
    ideal = by_term(np.array([[2, 1, 0], [1, 2, 0]]), ["chess", "chess"])
    assert ideal.tolist() == [[1, 0.5, 1]] and icat(ideal.sum(0, keepdims=True))[0] == 1
    stereotyped = by_term(np.array([[2, 1, 0], [3, 1, 0]]), ["a", "b"])
    assert icat(stereotyped.sum(0, keepdims=True))[0] == 0
    drawn = by_term(np.random.default_rng(0).random((60_000, 3)), [str(i % 300) for i in range(60_000)])
    lms, ss = drawn.mean(0)[:2]
    assert lms == pytest.approx(0.5, abs=0.01) and ss == pytest.approx(0.5, abs=0.01)
    assert icat(drawn.sum(0, keepdims=True))[0] == pytest.approx(0.5, abs=0.02)


def test_scores_are_means_over_target_terms_and_ties_lose_as_in_the_authors_code() -> None:
    """Term a: three items, all stereotyped; term b: one, a tie. ss is (1 + 0) / 2, not 3 of 4."""
    scores = np.array([[2.0, 1, 0], [2, 1, 0], [2, 1, 0], [1, 1, 0.5]])
    assert by_term(scores, ["a", "a", "a", "b"]).mean(0).tolist() == [1, 0.5, 1]
    tied = np.array([[2.0, 1, 0], [1, 0.5, 1]])
    assert by_term(tied, ["a", "b"])[:, 0].tolist() == [1, 0]


def _sentences(*texts: str) -> list[dict]:
    return [{"sentence": text, "gold_label": label, "id": label, "labels": []}
            for text, label in zip(texts, ("anti-stereotype", "unrelated", "stereotype"), strict=True)]  # fmt: skip


def test_stereoset_reads_the_authors_file_and_scores_by_character_after_the_context(tmp_path: Path, bigram) -> None:
    held = {
        "intrasentence": [{"id": "1", "target": "cat", "bias_type": "gender", "context": "The BLANK",
                           "sentences": _sentences("the dog sat.", "qx#zz", "the cat sat.")},
                          {"id": "2", "target": "cat", "bias_type": "gender", "context": "", "sentences": []}],
        "intersentence": [{"id": "3", "target": "mat", "bias_type": "race", "context": "the mat.",
                           "sentences": _sentences("the cat sat on the mat.", "zzzz", "the dog!")}],
    }  # fmt: skip
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "1.1", "data": held}))
    read = list(STEREOSET.read(path))
    assert [type(r) is Reject for r in read] == [False, True, False] and "no stereotyping" in read[1].reason
    items = [{"id": f"s-{row}", "task": "stereoset", **fields} for row, fields in (read[0], read[2])]
    assert items[0]["choices"] == ["the cat sat.", "the dog sat.", "qx#zz"] and items[0]["query"] == ""
    task = benchmark_task(STEREOSET, items)
    logged = engine.evaluate(HeadwaterLM(bigram), {"stereoset": task}, bootstrap_iters=0)["samples"]["stereoset"]
    assert [tuple(a) for a in logged[1]["arguments"]] == [
        ("the mat.", " the dog!"), ("the mat.", " the cat sat on the mat."), ("the mat.", " zzzz")]  # fmt: skip
    rows = STEREOSET.rows(STEREOSET, items, logged)
    by_hand = [bigram.table[a, b].item() for a, b in zip(b".", b" ", strict=True)]
    said = " the dog!"
    by_hand += [bigram.table[a, b].item() for a, b in zip(said.encode(), said.encode()[1:], strict=False)]
    assert rows[1]["by_character"][0] == pytest.approx(sum(by_hand) / len("the dog!"), abs=1e-5)
    scores = STEREOSET.scores(STEREOSET, items, rows)
    assert {"stereoset", "stereoset:lms", "stereoset:ss", "stereoset:intersentence_icat", "stereoset:gender_ss",
            "stereoset:total_icat"} <= set(scores)  # fmt: skip
    assert scores["stereoset:ss"]["kind"] == "bias" and scores["stereoset"]["n"] == 2


def test_a_file_that_is_not_stereoset_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_text("[1, 2]")
    (reject,) = STEREOSET.read(path)
    assert "not a StereoSet file" in reject.reason
