"""Planted duplicates are found, others stay, and every removal names what was kept."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage

from headwater_data._contracts.errors import UsageError
from headwater_data._contracts.manifest import verify
from headwater_data.config import DedupConfig


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


def kept_and_rejects(out) -> tuple[list[str], dict[str, str]]:
    rejects = pl.read_parquet(out / "rejects/*.parquet") if (out / "rejects").is_dir() else None
    kept = pl.read_parquet(out / "part-*.parquet").sort("id")["id"].to_list()
    return kept, dict(rejects.select("id", "rule").rows()) if rejects is not None else {}


def test_of_one_address_the_parts_of_one_work_stay(tmp_path, topics):
    frame = documents_frame(topics[:5]).with_columns(
        id=pl.Series(["web/a#0000", "web/a#0001", "web/b", "web/c", "web/d"]),
        url=pl.Series(
            ["https://www.x.org/p/?b=2&a=1", "http://x.org/p?a=1&b=2#top", "http://x.org/p/?a=1&b=2&utm_source=q",
             "http://x.org/other", ""]
        ),
    )  # fmt: skip
    config = {"keep": "first", "workers": 1}
    out = run_stage("dedup", tmp_path, {"documents": documents_folder(tmp_path / "in", frame)}, **config)
    kept, rejects = kept_and_rejects(out)
    assert kept == ["web/a#0000", "web/a#0001", "web/c", "web/d"] and rejects == {"web/b": "same_url"}


def test_a_signal_chooses_the_survivor_and_an_unknown_one_is_refused(tmp_path, topics):
    base = max(topics, key=len)
    frame = documents_frame([base + " and more", base, base.title()]).with_columns(score=pl.Series([0.1, 0.9, 0.5]))
    folder = documents_folder(tmp_path / "in", frame)
    for keep, best in (("score", "web/d1"), ("-score", "web/d0")):
        (tmp_path / keep).mkdir()
        out = run_stage("dedup", tmp_path / keep, {"documents": folder}, workers=1, keep=keep)
        assert kept_and_rejects(out)[0] == [best]
    with pytest.raises(UsageError, match="score"):
        run_stage("dedup", tmp_path, {"documents": folder}, workers=1, keep="quality")


def test_a_snapshot_is_deduplicated_by_itself_when_the_scope_says_so(tmp_path, topics):
    metas = ['{"snapshot": "a"}', '{"snapshot": "a"}', '{"snapshot": "b"}']
    frame = documents_frame([topics[0]] * 3).with_columns(meta=pl.Series(metas))
    folder = documents_folder(tmp_path / "in", frame)
    out = run_stage("dedup", tmp_path, {"documents": folder}, workers=1, scope="meta.snapshot")
    assert kept_and_rejects(out) == (["web/d0", "web/d2"], {"web/d1": "exact_duplicate"})


def test_an_earlier_corpus_removes_and_is_neither_removed_nor_written(tmp_path, topics):
    base = max(topics, key=len)
    earlier = documents_folder(tmp_path / "old", documents_frame([base, topics[3]], source="old"))
    new = documents_frame([base + " " + "longer text of the same page " * 2, topics[3], topics[5]], source="new")
    inputs = {"documents": documents_folder(tmp_path / "in", new), "earlier": earlier}
    out = run_stage("dedup", tmp_path, inputs, workers=1)
    kept, rejects = kept_and_rejects(out)
    assert kept == ["new/d2"] and rejects == {"new/d0": "near_duplicate", "new/d1": "exact_duplicate"}
    named = pl.read_parquet(out / "rejects/*.parquet").sort("id")["meta"].to_list()
    assert [json.loads(m)["kept"] for m in named] == ["old/d0", "old/d1"]


def test_likenesses_below_the_threshold_share_a_cluster_and_stay(tmp_path, topics):
    base = max(topics, key=len)
    frame = documents_frame([base, edited(base, 20), topics[0]])
    folder = documents_folder(tmp_path / "in", frame)
    out = run_stage("dedup", tmp_path, {"documents": folder}, workers=1, bands=60, rows=2)
    kept = pl.read_parquet(out / "part-*.parquet").sort("id")
    assert kept["cluster"].to_list() == ["web/d0", "web/d0", "web/d2"]


def test_presets_are_laid_under_what_is_written_beside_them():
    config = DedupConfig(preset="lee", rows=5)
    assert (config.bands, config.rows, config.verify_edit, config.substrings.min_words) == (450, 5, 0.8, 50)


def test_an_edit_similarity_is_asked_where_the_preset_asks_for_it(tmp_path, topics):
    base = max(topics, key=len).split()
    halves = " ".join(base), " ".join(base[len(base) // 2 :] + base[: len(base) // 2])  # same shingles, other order
    folder = documents_folder(tmp_path / "in", documents_frame(list(halves)))
    for name, count in (("without", 1), ("with", 2)):
        (tmp_path / name).mkdir()
        extra = {"verify_edit": 0.8} if name == "with" else {}
        out = run_stage("dedup", tmp_path / name, {"documents": folder}, workers=1, **extra)
        assert len(kept_and_rejects(out)[0]) == count
