"""headwater-tokenizer beside its peers: text to tokenizer, and a Parquet shard to a file of ids.

Input: the documents of a finished lineage (`make`, or a folder of artefacts in HEADWATER_ARTEFACTS), in an order that
mixes the sources. The tokenizers that encode were learned on 20 MB of it, and so were sentencepiece's own models, whose
ids are others; all other engines encode with our tokenizer.json. tokenizers encodes a part, since rates are compared.
Before encoding is timed the ids of all documents are compared: equal to tokenizers', and of BPE to tiktoken's.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.data import artefacts
from benchmarks.frame import Row, higher_is_better, lower_is_better
from benchmarks.peers import measure
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.splits import split_pattern

MODULE = "tokenizer_work"
SIZES = (8192, 32768)
PEERS = {"huggingface": ("tokenizers", "0.23.3"), "tiktoken": ("tiktoken", "0.14.0"), "rustbpe": ("rustbpe", "0.1.0"),
         "sentencepiece": ("sentencepiece", "0.2.3")}  # fmt: skip
SAMPLE_BYTES = 20_000_000
CORES = 2
"""Of the rows by wall time."""
ROW_GROUP = 500
"""Documents of one, the unit of work of our processes."""
SCRIPTS = (
    "Arabic", "Armenian", "Bengali", "Bopomofo", "Braille", "Cherokee", "Cyrillic", "Devanagari", "Ethiopic",
    "Georgian", "Gothic", "Greek", "Gujarati", "Gurmukhi", "Han", "Hangul", "Hebrew", "Hiragana", "Kannada", "Katakana",
    "Khmer", "Lao", "Latin", "Malayalam", "Mongolian", "Myanmar", "Ogham", "Oriya", "Runic", "Sinhala", "Syriac",
    "Tamil", "Telugu", "Thaana", "Thai", "Tibetan",
)  # fmt: skip
"""Looked for in the documents, to say in how many scripts ids were compared."""


@dataclass(frozen=True)
class Input:
    """The documents as Parquet shards."""

    whole: Path
    part: Path
    """An eighth of them, for slow peers."""
    sample: Path
    """What tokenizers are learned on."""
    documents: pl.DataFrame
    repetitions: int

    def megabytes(self, shard: Path) -> float:
        return pl.read_parquet(shard).select(pl.col("text").str.len_bytes().sum()).item() / 1e6


def run(quick: bool) -> list[Row]:
    """A row an algorithm, vocabulary and peer."""
    with tempfile.TemporaryDirectory() as scratch:
        data = _input(Path(scratch), quick)
        sizes = (4096,) if quick else SIZES
        ours = {(name, size): Path(scratch) / f"{name}-{size}" for name in ("bpe", "unigram") for size in sizes}
        rows = [row for size in sizes for row in _training(data, size, Path(scratch))]
        for (name, size), folder in ours.items():
            measure("own", MODULE, "learn", data.sample, folder, name, str(size))
        rows += [_same_ids(data, *which, folder) for which, folder in ours.items()]
        for (name, size), folder in ours.items():
            model = _model(Path(scratch), name, size)
            rows += _encoding(data, name, size, folder, model, cores=1)
            rows += _encoding(data, name, size, folder, model, CORES) if size == sizes[-1] else []
    return rows


def _input(scratch: Path, quick: bool) -> Input:
    documents = pl.read_parquet(artefacts() / "extracted" / "part-*.parquet", columns=["id", "text"])
    documents = documents.sort("id").sample(fraction=1.0, shuffle=True, seed=1)
    documents = documents.head(500) if quick else documents
    data = Input(scratch / "whole", scratch / "part", scratch / "sample", documents, 1 if quick else 3)
    documents.write_parquet(data.whole, row_group_size=ROW_GROUP)
    documents.head(max(len(documents) // 8, 200)).write_parquet(data.part, row_group_size=ROW_GROUP)
    documents.filter(pl.col("text").str.len_bytes().cum_sum() < SAMPLE_BYTES).write_parquet(data.sample)
    return data


def _model(scratch: Path, name: str, entries: int) -> Path:
    """Where sentencepiece's own model lies; its training writes it."""
    return scratch / f"{name}-{entries}.model"


# ---- training


def _training(data: Input, entries: int, scratch: Path) -> list[Row]:
    """BPE on all documents, Unigram on the sample: its other trainers take a second and more a megabyte."""
    config = TrainConfig(vocab_size=entries)
    learned, pattern = str(config.learned), split_pattern(config.split, config.digits)
    rows = []
    for name, shard in (("bpe", data.whole), ("unigram", data.sample)):
        model = _model(scratch, name, entries)
        peers = [("huggingface", pattern, 3.0 if name == "bpe" else 2.0), ("sentencepiece", model, None)]
        if name == "bpe":
            peers.insert(1, ("rustbpe", pattern, 1.0))
        for peer, last, target in peers:
            ours, theirs = _medians(
                ("own", MODULE, "train_ours", shard, name, str(entries)),
                ("tokenizers", MODULE, f"train_{peer}", shard, name, learned, last), data.repetitions,
            )  # fmt: skip
            same = peer == "huggingface" and name == "bpe"
            if same and ours["merges"] != theirs["merges"]:
                raise AssertionError(f"{entries} entries: the trainers' merges differ")
            how = f"{data.megabytes(shard):.0f} MB, {'equal merges' if same else 'its own entries'}, "
            how += f"median of {data.repetitions}, CPU time of all threads"
            rows.append(
                lower_is_better(
                    f"train {name}, {entries} entries", "CPU s", ours["cpu_s"], *PEERS[peer], theirs["cpu_s"], target,
                    how,
                )
            )  # fmt: skip
        if name == "bpe":  # to encode with, learned on as much as ours
            measure("tokenizers", MODULE, "train_sentencepiece", data.sample, name, learned, model)
    return rows


# ---- encoding


def _encoding(data: Input, name: str, entries: int, folder: Path, model: Path, cores: int) -> list[Row]:
    """On one core by CPU time; on several by wall time, in processes beside the peer's threads."""
    peers = [("huggingface", data.part, folder), ("sentencepiece", data.whole, model)]
    if name == "bpe":
        peers.insert(1, ("tiktoken", data.whole, folder))
    function, figure, more = ("ours", "cpu_s", []) if cores == 1 else ("ours_parallel", "wall_s", [str(cores)])
    rows = []
    for peer, shard, what in peers:
        ours, theirs = _medians(
            ("own", MODULE, function, data.whole, folder, *more),
            ("tokenizers", MODULE, peer, shard, what, *more), data.repetitions, figure,
        )  # fmt: skip
        rates = data.megabytes(data.whole) / ours[figure], data.megabytes(shard) / theirs[figure]
        # 30 MB/s, as a ratio to this peer here; Unigram as fast as sentencepiece's own
        target = round(30.0 / rates[1], 2) if name == "bpe" else 1.0 if peer == "sentencepiece" else None
        whose = "its own model" if peer == "sentencepiece" else "equal ids"
        how = f"{data.megabytes(data.whole):.0f} MB ours, {data.megabytes(shard):.0f} MB theirs, {whose}, "
        how += f"median of {data.repetitions}, {'one core' if cores == 1 else f'{cores} processes, {cores} threads'}"
        work = f"encode {name}, {entries} entries" + (f", {cores} cores" if cores > 1 else "")
        unit = "MB/CPU s" if cores == 1 else "MB/s"
        rows.append(higher_is_better(work, unit, rates[0], *PEERS[peer], rates[1], target if cores == 1 else 1.0, how))
    return rows


def _medians(a: tuple, b: tuple, repetitions: int, figure: str = "cpu_s") -> tuple[dict, dict]:
    """`measure(*a)` and `measure(*b)`, A B A B; each with the median of a figure."""
    results: tuple[list[dict], list[dict]] = ([], [])
    for _ in range(repetitions):
        for side, arguments in zip(results, (a, b), strict=True):
            side.append(measure(*arguments))
    first, second = ({**found[-1], figure: statistics.median(x[figure] for x in found)} for found in results)
    return first, second


# ---- identity


def _same_ids(data: Input, name: str, entries: int, folder: Path) -> Row:
    os.environ["COMPARE"] = "1"
    try:
        peers = [("own", "ours"), ("tokenizers", "huggingface"), *([("tokenizers", "tiktoken")] * (name == "bpe"))]
        found = {what: measure(peer, MODULE, what, data.whole, folder) for peer, what in peers}
    finally:
        del os.environ["COMPARE"]
    if len({one["digest"] for one in found.values()}) > 1:
        raise AssertionError(f"{name}, {entries} entries: the ids of {' and '.join(found)} differ")
    texts = data.documents["text"]
    scripts = sum(bool(texts.str.contains(rf"\p{{{script}}}").any()) for script in SCRIPTS)
    how = f"{found['ours']['ids']} ids of all documents equal, in {scripts} scripts; also to tiktoken's"
    how = how if name == "bpe" else how.partition(";")[0]
    return higher_is_better(
        f"equal ids, {name}, {entries} entries", "documents", len(texts), *PEERS["huggingface"], len(texts), 1.0, how
    )
