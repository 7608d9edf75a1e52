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
from headwater_data.mix import plan_epochs

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
    natural = {name: ("internet", size) for name, (size, _) in sources.items()}
    config = MixConfig(weights={name: w for name, (_, w) in sources.items()}, total_bytes=budget, max_epochs=4)
    epochs = plan_epochs(natural, config)
    total = sum(epochs[name] * size for name, (size, _) in sources.items())
    assert total == pytest.approx(min(budget, 4 * sum(size for size, _ in sources.values())))
    assert max(epochs.values()) <= 4 + 1e-9


def test_an_id_that_stands_twice_is_refused(tmp_path):
    frame = documents_frame(TEXTS[:3])
    with pytest.raises(UserError, match="web/d0 stands for two"):
        corpus(tmp_path, frame, frame[:1])


def test_weights_that_leave_nothing_are_refused(tmp_path):
    with pytest.raises(UsageError, match="weight 0"):
        corpus(tmp_path, documents_frame(TEXTS), weights={"web": 0})
