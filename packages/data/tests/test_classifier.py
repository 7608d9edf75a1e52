"""The quality classifier, the n-gram model, and what filter makes of a score."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts.errors import UsageError, UserError
from headwater_data._contracts.manifest import verify
from headwater_data.quality.classifier import ARPA, MODEL, auc, fit_platt, platt, reliability
from headwater_data.quality.ngrams import END, START, UNKNOWN, estimate, sentence, write_arpa

kenlm = pytest.importorskip("kenlm")
SIDES = {"positives": ["good"], "negatives": ["raw"], "epochs": 20}


@pytest.fixture(scope="module")
def two_sides(tmp_path_factory, topics, modules):
    """English prose against source code, cut in pieces."""

    def pieces(texts, size=600):
        return [t[i : i + size] for t in texts for i in range(0, len(t) - size, size)][:150]

    folder = tmp_path_factory.mktemp("sides")
    frames = documents_frame(pieces(topics), source="good"), documents_frame(pieces(modules), source="raw")
    return documents_folder(folder / "documents", *frames)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, two_sides):
    return run_stage("classifier", tmp_path_factory.mktemp("trained"), {"documents": two_sides}, **SIDES)


def test_prose_is_told_from_code_and_calibration_helps(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["auc"] > 0.95
    assert metrics["calibrated"]["error"] < metrics["uncalibrated"]["error"]
    assert sum(b["documents"] for b in metrics["calibrated"]["bins"].values()) == sum(
        metrics["documents"][side]["test"] for side in ("positive", "negative")
    )
    verify(trained)


def test_the_same_input_gives_the_same_bytes(tmp_path, trained, two_sides):
    again = run_stage("classifier", tmp_path, {"documents": two_sides}, **SIDES)
    assert all((again / f).read_bytes() == (trained / f).read_bytes() for f in (MODEL, ARPA, "metrics.json"))


def test_signals_carry_score_and_perplexity(tmp_path, trained, two_sides):
    out = run_stage("signals", tmp_path, {"documents": two_sides, "classifier": trained}, workers=1)
    means = pl.read_parquet(out / "part-*.parquet").group_by("source").agg(pl.col("quality_score", "perplexity").mean())
    mean = {source: (score, perplexity) for source, score, perplexity in means.rows()}
    assert mean["good"][0] > 0.8 > 0.2 > mean["raw"][0]
    assert mean["good"][1] < mean["raw"][1]


def test_any_fasttext_model_scores(tmp_path, trained, two_sides):
    sources = tmp_path / "sources" / "mine"
    sources.mkdir(parents=True)
    (sources / "classifier.bin").write_bytes((trained / MODEL).read_bytes())
    (sources / "source.json").write_text('{"role": "weights"}')
    inputs = {"documents": two_sides, "sources": tmp_path / "sources"}
    out = run_stage("signals", tmp_path, inputs, workers=1, quality_model={"source": "mine"})
    assert pl.read_parquet(out / "part-*.parquet")["quality_score"].n_unique() > 50
    with pytest.raises(UsageError, match="no source other"):
        (tmp_path / "b").mkdir()
        run_stage("signals", tmp_path / "b", inputs, workers=1, quality_model={"source": "other"})


def test_too_few_documents_are_one_line(tmp_path, two_sides):
    with pytest.raises(UserError, match="novels give 0 documents"):
        run_stage("classifier", tmp_path, {"documents": two_sides}, positives=["novels"], negatives=["raw"])


@pytest.fixture
def scored(tmp_path):
    """2,000 documents with scores 0, 0.0005, ..."""
    frame = documents_frame([f"text {i}" for i in range(2000)])
    frame = frame.with_columns(quality_score=pl.Series([i / 2000 for i in range(2000)]), words=pl.lit(5.0))
    return documents_folder(tmp_path / "scored", *(frame[i : i + 500] for i in range(0, 2000, 500)))


def kept_scores(tmp_path, scored, **select) -> tuple[np.ndarray, pl.DataFrame]:
    rules = {"few": {"signal": "words", "remove_if": "<", "threshold": 1}}
    out = run_stage("filter", tmp_path, {"documents": scored}, rules=rules, published=False, select=select)
    return pl.read_parquet(out / "part-*.parquet")["quality_score"].to_numpy(), pl.read_parquet(
        out / "rejects/*.parquet"
    )


def test_the_best_share_stays(tmp_path, scored):
    kept, rejects = kept_scores(tmp_path, scored, keep="top", fraction=0.1)
    assert len(kept) == 200 and kept.min() == pytest.approx(0.9)
    assert set(rejects["rule"]) == {"select_top"} and rejects["threshold"].unique().to_list() == [pytest.approx(0.9)]


def test_the_pareto_draw_follows_its_distribution(tmp_path, scored):
    kept, rejects = kept_scores(tmp_path, scored, keep="pareto", alpha=9)
    for low in (0.8, 0.9, 0.95):
        share = ((kept >= low) & (kept < low + 0.05)).sum() / 100
        middle = 1 - (low + 0.025)
        assert share == pytest.approx((1 + middle) ** -9, abs=0.15)  # P(pareto(9) > 1 - score)
    assert 0 < (kept < 0.5).sum() < 60 and set(rejects["rule"]) == {"select_pareto"}
    assert (rejects["value"] <= rejects["threshold"]).all()


def test_a_selection_without_a_score_is_refused(tmp_path):
    folder = documents_folder(tmp_path / "in", documents_frame(["a"]).with_columns(words=pl.lit(5.0)))
    with pytest.raises(UsageError, match="no score quality_score"):
        kept_scores(tmp_path, folder, keep="top")


def test_the_ngram_model_gives_each_context_a_distribution(tmp_path, topics):
    tables = estimate(topics[:30], 3, 2)
    write_arpa(tmp_path / "m.arpa", tables)
    model = kenlm.Model(str(tmp_path / "m.arpa"))
    vocabulary = [w for w in tables[0]["w0"].to_list() if w != START]
    for context in (["the"], ["of", "the"], ["statement", "is"], ["never", "seen"], []):
        state, after = kenlm.State(), kenlm.State()
        model.NullContextWrite(state)
        for word in context:
            model.BaseScore(state, word, after)
            state, after = after, kenlm.State()
        out = kenlm.State()
        total = sum(10 ** model.BaseScore(state, w if w != UNKNOWN else "", out) for w in vocabulary)
        assert total == pytest.approx(1.0, abs=2e-3)
    assert END in vocabulary
    seen, shuffled = sentence(topics[3]), " ".join(sorted(sentence(topics[3]).split()))
    assert model.perplexity(seen) < model.perplexity(shuffled) / 3


def test_a_model_of_two_sentences_is_what_one_computes_by_hand():
    """A known case by hand: two sentences, bigrams, discount n1 / (n1 + 2 n2)."""
    tables = estimate(["a b", "a c"], 2, 1)
    q = {tuple(row[:2]): 10 ** row[2] for row in tables[1].iter_rows()}
    # bigrams: <s>a 2, ab 1, ac 1, b</s> 1, c</s> 1: discount 4 / (4 + 2); left contexts: a, b, c one, </s> two
    ones, twos = 3, 1
    d1 = ones / (ones + 2 * twos)
    words = 5  # a b c </s> <unk>
    p = {"a": (1 - d1) / 5 + d1 * 4 / 5 / words, "b": (1 - d1) / 5 + d1 * 4 / 5 / words}
    assert q["<s>", "a"] == pytest.approx((2 - 2 / 3) / 2 + 2 / 3 * 1 / 2 * p["a"], rel=1e-6)
    assert q["a", "b"] == pytest.approx((1 - 2 / 3) / 2 + 2 / 3 * 2 / 2 * p["b"], rel=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_how_often_a_positive_scores_higher(pairs):
    scores, truth = np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])
    if truth.all() or not truth.any():
        return
    wins = [(p > n) + (p == n) / 2 for p in scores[truth] for n in scores[~truth]]
    assert auc(scores, truth) == pytest.approx(np.mean(wins))


def test_platt_scaling_finds_the_distortion_that_labels_were_drawn_with():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.99, 20_000)
    truth = rng.uniform(size=20_000) < platt(p, 0.6, -0.8)
    assert fit_platt(p, truth) == (pytest.approx(0.6, abs=0.06), pytest.approx(-0.8, abs=0.06))


def test_platt_scaling_undoes_a_known_distortion():
    rng = np.random.default_rng(3)
    true = rng.uniform(0.02, 0.98, 20_000)
    truth = rng.uniform(size=20_000) < true
    distorted = platt(true, 0.3, 0.2)
    a, b = fit_platt(distorted, truth)
    assert reliability(platt(distorted, a, b), truth)["error"] < 0.02 < reliability(distorted, truth)["error"]
