"""headwater-tokenizer beside its peers: text to merges, and a Parquet shard to a file of ids; one core, CPU time.

Input: the documents of a finished lineage (`make`, or a folder of artefacts in HEADWATER_ARTEFACTS), in an order that
mixes the sources. All engines encode with the same tokenizer.json, learned on 20 MB of it; tokenizers encodes a part,
since rates are compared. The ids of all documents are the same: compared by their hash in a run of its own.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.data import artefacts
from benchmarks.frame import Row, higher_is_better, lower_is_better
from benchmarks.peers import alternate, measure

MODULE = "tokenizer_work"
SIZES = (8192, 32768)
PEERS = {"huggingface": ("tokenizers", "0.23.3"), "tiktoken": ("tiktoken", "0.14.0"), "rustbpe": ("rustbpe", "0.1.0")}


def run(quick: bool) -> list[Row]:
    """A row a vocabulary and peer."""
    documents = pl.read_parquet(artefacts() / "extracted" / "part-*.parquet", columns=["id", "text"])
    documents = documents.sort("id").sample(fraction=1.0, shuffle=True, seed=1)
    documents = documents.head(500) if quick else documents
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        whole, part, sample = (Path(scratch) / f"{name}.parquet" for name in ("whole", "part", "sample"))
        documents.write_parquet(whole, row_group_size=2000)
        documents.head(max(len(documents) // 8, 200)).write_parquet(part, row_group_size=2000)
        size = pl.col("text").str.len_bytes()
        documents.filter(size.cum_sum() < 20_000_000).write_parquet(sample)
        megabytes = {path: pl.read_parquet(path).select(size.sum()).item() / 1e6 for path in (whole, part, sample)}
        for entries in SIZES[:1] if quick else SIZES:
            folder = Path(scratch) / str(entries)
            rows += [_training(peer, sample if quick else whole, entries, megabytes, 1 if quick else 3)
                     for peer in ("huggingface", "rustbpe")]  # fmt: skip
            measure("own", MODULE, "learn", sample, folder, str(1024 if quick else entries))
            rows += [_beside(peer, shard, whole, folder, entries, megabytes, 1 if quick else 3)
                     for peer, shard in (("huggingface", part), ("tiktoken", whole))]  # fmt: skip
            _assert_same_ids(whole, folder, entries)
    return rows


def _training(peer: str, shard: Path, entries: int, megabytes: dict, repetitions: int) -> Row:
    ours, theirs = alternate(
        ("own", MODULE, "train_ours", shard, str(entries)),
        ("tokenizers", MODULE, f"train_{peer}", shard, str(entries)), repetitions,
    )  # fmt: skip
    if peer == "huggingface" and ours["merges"] != theirs["merges"]:
        raise AssertionError(f"{entries} entries: the trainers' merges differ")
    name, version = PEERS[peer]
    equal = "equal merges, " if peer == "huggingface" else ""
    how = f"{megabytes[shard]:.0f} MB, {equal}median of {repetitions}, one thread"
    target = 3.0 if peer == "huggingface" else 1.0
    return lower_is_better(
        f"train, {entries} entries", "CPU s", ours["cpu_s"], name, version, theirs["cpu_s"], target, how
    )


def _beside(peer: str, shard: Path, whole: Path, folder: Path, entries: int, megabytes: dict, repetitions: int) -> Row:
    ours, theirs = alternate(
        ("own", MODULE, "ours", whole, folder), ("tokenizers", MODULE, peer, shard, folder), repetitions
    )
    name, version = PEERS[peer]
    how = f"{megabytes[whole]:.0f} MB ours, {megabytes[shard]:.0f} MB theirs, median of {repetitions}, one core"
    rates = megabytes[whole] / ours["cpu_s"], megabytes[shard] / theirs["cpu_s"]
    target = 30.0 / rates[1]  # 30 MB/s, as a ratio to this peer here
    return higher_is_better(
        f"encode, {entries} entries", "MB/CPU s", rates[0], name, version, rates[1], round(target, 2), how
    )


def _assert_same_ids(whole: Path, folder: Path, entries: int) -> None:
    os.environ["COMPARE"] = "1"
    try:
        found = [
            measure(peer, MODULE, name, whole, folder)["digest"]
            for peer, name in (("own", "ours"), ("tokenizers", "huggingface"), ("tokenizers", "tiktoken"))
        ]
    finally:
        del os.environ["COMPARE"]
    if len(set(found)) > 1:
        raise AssertionError(f"{entries} entries: the engines' ids differ")
