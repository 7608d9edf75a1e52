"""Does decontamination find what is there, and nothing else? Benchmark items planted in real documents.

Input: 4,000 English documents and 200 items a disguise of a finished lineage; every item of 13 words or more is planted
in a document of its own, between two of its words, verbatim or disguised. `ours` is the share of the planted items that
the method finds in their documents, and in the last row the share of the 4,000 documents that it flags without a plant.
The peer is marin, whose own test found 54% of verbatim plants and whose flags were false for 88 of 114 sources
(marin#5519); it is quoted, not run.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from benchmarks.data import artefacts, english
from benchmarks.frame import Row
from headwater_data._contracts.manifest import SCHEMAS, Manifest
from headwater_data._contracts.manifest import write as write_manifest
from headwater_data.documents import part_name, write_part

METHODS = ("gpt3", "palm", "llama", "fuzzy")
TARGETS = {("gpt3", "verbatim"): 1.0, ("gpt3", "typography"): 1.0, ("fuzzy", "every 6th word changed"): 0.9}


def _typography(words: list[str], rng: random.Random) -> list[str]:
    return [rng.choice((w.upper(), f"({w})", f"{w},\n\n", w)) for w in words]


CHANGED: list[str] = [
    "rather",
    "quite",
    "indeed",
    "somewhat",
    "perhaps",
    "certain",
    "several",
    "other",
    "various",
    "also",
    "thus",
]
DISGUISES: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "verbatim": lambda words, rng: words,
    "typography": _typography,  # capitals, brackets, commas, line ends
    "first 60%": lambda words, rng: words[: -(-len(words) * 6 // 10)],
    "halves swapped": lambda words, rng: words[len(words) // 2 :] + words[: len(words) // 2],
    "every 7th word dropped": lambda words, rng: [w for i, w in enumerate(words) if i % 7 != 3],
    "every 6th word changed": lambda words, rng: [
        rng.choice(CHANGED) if i % 6 == 3 else w for i, w in enumerate(words)
    ],
    "every 4th word changed": lambda words, rng: [
        rng.choice(CHANGED) if i % 4 == 2 else w for i, w in enumerate(words)
    ],
}


def run(quick: bool) -> list[Row]:
    """A row a method and disguise."""
    base = english(artefacts()).head(600 if quick else 4000)
    each = 20 if quick else 200
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents, planted, count = plant(folder, base, each)
        for method in METHODS:
            found = flagged(folder, documents, method)
            for disguise in DISGUISES:
                wanted = {pair for pair, how in planted.items() if how == disguise}
                share = len(found & wanted) / len(wanted)
                rows.append(_row(f"{method}: {disguise}", share, 0.54, TARGETS.get((method, disguise)), len(wanted)))
            false = {document for item, document in found if (item, document) not in planted}
            rows.append(_row(f"{method}: flagged without a plant", len(false) / count, 88 / 114, None, count))
            print(rows[-1], flush=True)
    return rows


def _row(work: str, share: float, peer: float, target: float | None, count: int) -> Row:
    return Row(work, "share", round(share, 4), "marin (quoted)", "", round(peer, 4), round(share / peer, 2),
               target and round(target / peer, 2), f"of {count}")  # fmt: skip


def plant(folder: Path, base: pl.DataFrame, each: int) -> tuple[Path, dict[tuple[str, str], str], int]:
    """A documents artefact with planted items, and (item, document) -> disguise."""
    rng = random.Random(11)
    items = [
        json.loads(line)
        for path in sorted((artefacts() / "items").glob("*.jsonl"))
        if path.name != "rejects.jsonl"
        for line in path.read_text().splitlines()
    ]
    long = [i for i in items if len(re.findall(r"\w+", i["text"])) >= 13]
    chosen = rng.sample(long, min(each * len(DISGUISES), len(base), len(long)))
    (folder / "items").mkdir()
    (folder / "items" / "planted.jsonl").write_text("".join(json.dumps(i) + "\n" for i in chosen))
    texts, ids = base["text"].to_list(), base["id"].to_list()
    planted = {}
    names = list(DISGUISES)
    for i, (item, at) in enumerate(zip(chosen, rng.sample(range(len(base)), len(chosen)), strict=True)):
        disguise = names[i % len(names)]
        gaps = [m.start() for m in re.finditer(r"\s", texts[at])] or [0]
        place = rng.choice(gaps)
        leak = " ".join(DISGUISES[disguise](item["text"].split(), rng))
        texts[at] = f"{texts[at][:place]} {leak} {texts[at][place:]}"
        planted[f"{item['task']}/{item['id']}", ids[at]] = disguise
    columns = base.select("id", "text", "source", "category", "url", "lang", "licence", "meta")
    write_part(folder / "documents" / part_name(0), columns.with_columns(text=pl.Series(texts)))
    for kind, name in (("documents", "documents"), ("items", "items")):
        write_manifest(folder / name, Manifest(kind, SCHEMAS[kind], "headwater-data", "0", "benchmark", {}))
    return folder / "documents", planted, len(base)


def flagged(folder: Path, documents: Path, method: str) -> set[tuple[str, str]]:
    """(item, document) that one method holds for leaks."""
    out = folder / method
    tool = Path(sys.executable).parent / "headwater-data"
    subprocess.run(
        [tool, "decontaminate", "--in", f"documents={documents}", "--in", f"items={folder / 'items'}", "--out", out,
         "--work", folder / "work", "--set", "workers=1", "--set", f"method={method}"],
        check=True, capture_output=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "overlap.jsonl").read_text().splitlines()]
    return {(f"{o['task']}/{o['id']}", d["id"]) for o in lines for d in o["held_by"] if d["leak"]}
