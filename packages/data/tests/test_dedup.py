"""Planted duplicates are found, others stay, and every removal names what was kept."""

from __future__ import annotations

import json

import polars as pl
from conftest import documents_folder, documents_frame, run_stage

from headwater_data._contracts.manifest import verify


def edited(text: str, every: int) -> str:
    words = text.split(" ")
    return " ".join("changed" if i % every == every - 1 else w for i, w in enumerate(words))


def test_copies_go_and_the_longest_of_a_cluster_stays(tmp_path, topics):
    unique = topics[10:30]
    base = max(topics, key=len)
    longer = edited(base, 200) + " And one more sentence at the end of it."
    near = documents_frame([base, longer, base.upper() + "!!"], source="b")
    folder = documents_folder(tmp_path / "in", documents_frame(unique, source="a"), near)
    out = run_stage("dedup", tmp_path, {"documents": folder}, workers=1)
    kept = pl.read_parquet(out / "part-*.parquet")
    assert set(kept["id"]) == {f"a/d{i}" for i in range(20)} | {"b/d1"}
    assert kept.filter(pl.col("id") == "b/d1")["copies"].item() == 2
    rejects = pl.read_parquet(out / "rejects/*.parquet").sort("id")
    assert rejects["rule"].to_list() == ["exact_duplicate", "near_duplicate"]  # d2 has two characters more than d0
    assert [json.loads(m)["kept"] for m in rejects["meta"]] == ["b/d1", "b/d1"]
    assert (rejects["value"] >= 0.7).all()
    verify(out)


def test_pairs_below_the_true_jaccard_stay_apart(tmp_path, topics):
    base = max(topics, key=len)
    folder = documents_folder(tmp_path / "in", documents_frame([base, edited(base, 6)]))
    out = run_stage("dedup", tmp_path, {"documents": folder}, workers=1, bands=100, rows=1, verify_jaccard=0.9)
    assert len(pl.read_parquet(out / "part-*.parquet")) == 2
    assert json.loads((out / "metrics.json").read_text())["candidate_pairs"] == 1


def test_preferred_sources_survive_over_longer_ones(tmp_path, topics):
    base = max(topics, key=len)
    frames = documents_frame([base + " more"], source="web"), documents_frame([base], source="books")
    folder = documents_folder(tmp_path / "in", *frames)
    out = run_stage("dedup", tmp_path, {"documents": folder}, workers=1, prefer=["books"])
    assert pl.read_parquet(out / "part-*.parquet")["source"].to_list() == ["books"]


def test_documents_without_words_are_not_each_others_copies_unless_equal(tmp_path):
    folder = documents_folder(tmp_path / "in", documents_frame(["...", "!!!", "...", "", "a b"]))
    out = run_stage("dedup", tmp_path, {"documents": folder}, workers=1)
    assert pl.read_parquet(out / "part-*.parquet")["text"].to_list() == ["...", "!!!", "", "a b"]
