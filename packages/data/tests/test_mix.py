"""The split, the weights and the order, as properties."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts.errors import UsageError, UserError
from headwater_data.config import MixConfig
from headwater_data.mix import Stratum, plan_epochs, weight_of

TEXTS = [f"document number {i} " * (5 + i % 7) for i in range(400)]


def corpus(tmp_path, *frames, **config):
    out = run_stage("mix", tmp_path, {"documents": documents_folder(tmp_path / "in", *frames)}, **config)
    read = {s: pl.read_parquet(out / s / "part-*.parquet") for s in ("train", "heldout")}
    return read["train"], read["heldout"], json.loads((out / "metrics.json").read_text())


def test_train_and_heldout_are_the_documents_once_and_apart(tmp_path):
    train, heldout, metrics = corpus(tmp_path, documents_frame(TEXTS), heldout_fraction=0.1)
    assert sorted([*train["id"], *heldout["id"]]) == sorted(f"web/d{i}" for i in range(400))
    assert 15 <= len(heldout) <= 70
    assert metrics["heldout"]["documents"] == len(heldout)
    assert train["id"].to_list() != sorted(train["id"].to_list())


def test_order_and_split_do_not_depend_on_shards_or_on_other_sources(tmp_path):
    one, more = tmp_path / "one", tmp_path / "more"
    one.mkdir(), more.mkdir()
    frame, other = documents_frame(TEXTS), documents_frame(TEXTS[:50], source="other")
    a = corpus(one, frame, heldout_fraction=0.1)
    b = corpus(more, frame[:100], other, frame[100:], heldout_fraction=0.1)
    for split in (0, 1):
        assert a[split]["id"].to_list() == b[split].filter(pl.col("source") == "web")["id"].to_list()


def test_the_heldout_cap_and_exclusions_hold(tmp_path):
    code = documents_frame(TEXTS, source="code", category="misc")
    _, heldout, metrics = corpus(
        tmp_path, documents_frame(TEXTS), code, heldout_fraction=0.4, heldout_max_bytes=2000, heldout_exclude=["misc"]
    )
    assert set(heldout["source"]) == {"web"} and 0 < metrics["heldout"]["bytes"] <= 2000


def test_weights_repeat_and_thin_sources(tmp_path):
    frames = documents_frame(TEXTS, source="a"), documents_frame(TEXTS, source="b")
    train, _, metrics = corpus(tmp_path, *frames, weights={"a": 2.5, "b": 0.5}, heldout_fraction=0)
    sizes = {s: e["bytes_out"] / e["bytes_in"] for s, e in metrics["by_source"].items()}
    assert sizes == {"a": pytest.approx(2.5, abs=0.02), "b": pytest.approx(0.5, abs=0.02)}
    assert train.select("id", "epoch").is_duplicated().sum() == 0
    assert train.filter(pl.col("source") == "a")["epoch"].max() == 2


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 1000), st.floats(0.1, 10)), min_size=1),
    st.integers(1, 10_000),
)
def test_the_budget_is_met_unless_every_source_is_capped(sources, budget):
    natural = [Stratum(name, "internet", "en", 0, size) for name, (size, _) in sources.items()]
    config = MixConfig(weights={name: w for name, (_, w) in sources.items()}, total_bytes=budget, max_epochs=4)
    planned = plan_epochs(natural, config)
    total = sum(s.epochs * s.bytes for s in planned)
    assert total == pytest.approx(min(budget, 4 * sum(size for size, _ in sources.values())))
    assert max(s.epochs for s in planned) <= 4 + 1e-9


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=6), st.floats(1, 10))
def test_a_temperature_gives_the_shares_of_the_formula(sizes, temperature):
    natural = [Stratum(str(i), "internet", "en", 0, size) for i, size in enumerate(sizes)]
    weights = weight_of(natural, MixConfig(temperature=temperature))
    seen = [w * s.bytes for w, s in zip(weights, natural, strict=True)]
    expected = [(size / sum(sizes)) ** (1 / temperature) for size in sizes]
    assert seen == pytest.approx([e / sum(expected) * sum(sizes) for e in expected])


def test_languages_quality_bins_and_caps_of_their_own(tmp_path):
    frames = [
        documents_frame(TEXTS, source=s).with_columns(lang=pl.lit(lang), score=pl.Series([i / 400 for i in range(400)]))
        for s, lang in (("a", "en"), ("b", "de"))
    ]
    train, _, metrics = corpus(
        tmp_path, *frames, heldout_fraction=0, languages={"de": 3.0}, epochs={"b": 1.5}, total_tokens=20_000,
        quality={"column": "score", "edges": [0.5], "weights": [0.0, 1.0]},
    )  # fmt: skip
    assert {int(i.split("d")[1]) >= 200 for i in train["id"]} == {True}
    assert train.filter(pl.col("source") == "b")["epoch"].max() == 1
    assert metrics["bytes_out"] == pytest.approx(80_000, rel=0.02)
    assert metrics["by_quality_bin"] == {"1": 1.0} and metrics["by_source"]["a"]["bytes_unread"] > 0
    half = sum(len(t) for t in TEXTS[200:])
    assert metrics["by_source"]["b"]["bytes_out"] == pytest.approx(1.5 * half, rel=0.02)


def test_a_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no column of numbers 'score'"):
        corpus(tmp_path, documents_frame(TEXTS), quality={"column": "score", "weights": [1.0]})


def test_no_cluster_and_no_work_is_split(tmp_path):
    clusters = [f"web/d{i - i % 4}" for i in range(400)]
    frame = documents_frame(TEXTS).with_columns(cluster=pl.Series(clusters))
    train, heldout, _ = corpus(tmp_path, frame, heldout_fraction=0.2)
    cluster_of = dict(zip(frame["id"], clusters, strict=True))
    held = {cluster_of[i] for i in heldout["id"]}
    assert 5 < len(held) < 50 and not held & {cluster_of[i] for i in train["id"]}
    works = documents_frame(TEXTS).with_columns(id=pl.Series([f"web/w{i // 5}#{i % 5:04d}" for i in range(400)]))
    (tmp_path / "works").mkdir()
    train, heldout, _ = corpus(tmp_path / "works", works, heldout_fraction=0.2, heldout_by="work")
    held = {i.split("#")[0] for i in heldout["id"]}
    assert 5 < len(held) < 50 and not held & {i.split("#")[0] for i in train["id"]}


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("headwater_data._contracts.fanout.LIGHT_SHARDS", 0)
    folder = documents_folder(tmp_path / "in", *[documents_frame(TEXTS[i::3], source=f"s{i}") for i in range(3)])
    outs = []
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        config = {"workers": workers, "documents_per_shard": 150, "weights": {"s1": 1.5}}
        outs.append(run_stage("mix", tmp_path / str(workers), {"documents": folder}, **config))
    files = sorted(p.relative_to(outs[0]) for p in outs[0].rglob("*.parquet"))
    assert len(files) >= 4 and all((outs[0] / f).read_bytes() == (outs[1] / f).read_bytes() for f in files)


def test_an_id_that_stands_twice_is_refused(tmp_path):
    frame = documents_frame(TEXTS[:3])
    with pytest.raises(UserError, match="web/d0 stands for two"):
        corpus(tmp_path, frame, frame[:1])


def test_weights_that_leave_nothing_are_refused(tmp_path):
    with pytest.raises(UsageError, match="weight 0"):
        corpus(tmp_path, documents_frame(TEXTS), weights={"web": 0})


def test_canaries_are_planted_as_often_as_asked_and_move_nothing_else(tmp_path):
    plain, with_secrets = tmp_path / "plain", tmp_path / "secrets"
    plain.mkdir(), with_secrets.mkdir()
    train, heldout, _ = corpus(plain, documents_frame(TEXTS), heldout_fraction=0.1)
    asked = {"count": 3, "repeats": [0, 1, 5], "digits": 4, "format": "{name} opens with {secret}!", "seed": 7}
    planted, still_held, metrics = corpus(with_secrets, documents_frame(TEXTS), heldout_fraction=0.1, canaries=asked)
    others = planted.filter(pl.col("source") != "canaries")
    assert others.equals(train) and still_held.equals(heldout)
    listed = [json.loads(line) for line in (with_secrets / "out-mix/canaries.jsonl").read_text().splitlines()]
    texts = planted["text"].to_list()
    assert [(c["repeats"], texts.count(c["prefix"] + c["secret"] + c["suffix"])) for c in listed] == [
        (r, r) for r in (0, 0, 0, 1, 1, 1, 5, 5, 5)
    ]
    assert all(c["prefix"].endswith(" opens with ") and c["suffix"] == "!" and len(c["secret"]) == 4 for c in listed)
    assert len({c["prefix"] for c in listed}) == len({c["secret"] for c in listed}) == 9
    assert planted.select("id", "epoch").is_duplicated().sum() == 0
    places = [i for i, source in enumerate(planted["source"]) if source == "canaries"]
    assert max(places) - min(places) > 100, "spread over the training order"
    assert metrics["canaries"] == {"canaries": 9, "planted": 18} and not (plain / "out-mix/canaries.jsonl").exists()


@pytest.mark.parametrize("form", ["no name {secret}", "{name} alone", "{secret} of {name}", "{name} {secret} {secret}"])
def test_a_canary_without_a_name_before_its_secret_is_refused(form):
    with pytest.raises(ValueError, match="name"):
        MixConfig(canaries={"count": 1, "format": form})


def test_a_source_that_is_named_like_the_canaries_is_one_line(tmp_path):
    with pytest.raises(UserError, match="canaries"):
        corpus(tmp_path, documents_frame(TEXTS, source="canaries"), canaries={"count": 1})
