"""Does cost grow in a straight line and memory stay flat? signals and dedup at 1x, 4x and 16x of one corpus.

Input: 4,000 documents of a finished lineage; a copy is made another text by a mark on every fourth word, so that
duplicates do not multiply with it. One worker process; CPU seconds and peak memory are those of the stage's own record.
`ours` is documents a CPU second, `figure` the same at 1x, ratio above 0.9: within 10%.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.data import artefacts, english
from benchmarks.frame import Row
from headwater_data._contracts.manifest import SCHEMAS, Manifest
from headwater_data._contracts.manifest import write as write_manifest
from headwater_data.documents import part_name, write_part

STAGES = ("signals", "dedup")


def run(quick: bool) -> list[Row]:
    """Rows of each stage and size."""
    base = english(artefacts()).head(300 if quick else 4000)
    rows: list[Row] = []
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 4) if quick else (1, 4, 16):
            documents = corpus(Path(folder) / f"x{times}", base, times)
            for stage in STAGES:
                record = cost(stage, documents, Path(folder))
                rate = times * len(base) / record["cpu_s"]
                first.setdefault(stage, rate)
                how = f"{times * len(base)} documents, {record['cpu_s']:.1f} CPU s, peak {record['peak_rss_mb']:.0f} MB"
                rows.append(
                    Row(f"{stage} at {times}x", "documents/CPU s", round(rate, 1), "itself at 1x", "",
                        round(first[stage], 1), round(rate / first[stage], 3), 0.9 if times > 1 else None, how)
                )  # fmt: skip
                print(f"{stage} {times}x: {how}", flush=True)
    return rows


def corpus(folder: Path, base: pl.DataFrame, times: int) -> Path:
    """A documents artefact of `times` copies that are no near-duplicates of each other."""
    columns = base.select("id", "text", "source", "category", "url", "lang", "licence", "meta")
    for copy in range(times):
        texts = [mark(text, copy) for text in columns["text"]]
        frame = columns.with_columns(text=pl.Series(texts), id=pl.col("id") + f"@{copy}", url=pl.lit(""))
        write_part(folder / part_name(copy), frame)
    write_manifest(folder, Manifest("documents", SCHEMAS["documents"], "headwater-data", "0", "benchmark", {}))
    return folder


def mark(text: str, copy: int) -> str:
    """The text with a mark on every fourth word: no five words in a row stay as they were."""
    if not copy:
        return text
    words = text.split(" ")
    words[::4] = [f"{word}x{copy}" for word in words[::4]]
    return " ".join(words)


def cost(stage: str, documents: Path, folder: Path) -> dict:
    """The run record of one stage on one worker."""
    record = folder / f"{stage}.json"
    tool = Path(sys.executable).parent / "headwater-data"
    subprocess.run(
        [tool, stage, "--in", f"documents={documents}", "--out", folder / f"{documents.name}-{stage}", "--work",
         folder / "work", "--record", record, "--set", "workers=1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return json.loads(record.read_text())
