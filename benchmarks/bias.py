"""What each mitigation of bias changes, measured before and after on a real corpus.

Input: the English documents of a finished lineage. Before; with every document gone that holds a word of npm's
naughty-words (filter); with the genders swapped in half of the documents (modification). `ours` is the figure after,
the peer's column the same before. Ratio of mentions: the larger of both genders over the smaller. Gap: largest over
smallest share of a dimension's groups that stand within 10 words of a list's words.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.data import artefacts, english
from benchmarks.frame import Row
from headwater_data.clean.stage import half
from headwater_data.config import SourceConfig
from headwater_data.harm.identity import analyse, gap
from headwater_data.harm.modification import counterfactual
from headwater_data.harm.wordlists import WordLists
from headwater_data.ingest.fetch import fetch, members

LISTS = SourceConfig(
    role="wordlists", category="misc", licence="CC-BY-4.0", kind="npm", package="naughty-words", version="1.2.0",
    sha256="c34b05e10a97ec7b9e0c3dd91d09888187c0f08d0812eaea79679795585b217e",
    root="package", include=("??.json", "???.json"), reader="raw",
)  # fmt: skip


def run(quick: bool) -> list[Row]:
    """Rows of each mitigation and figure."""
    documents = english(artefacts()).head(500 if quick else 1_000_000)
    with tempfile.TemporaryDirectory() as cache:
        files = members("lists", LISTS, fetch("lists", LISTS, Path(cache)))
        found = {m.path.partition(".")[0]: json.loads(m.data) for m in files}
    lists = WordLists(found)
    texts = documents["text"]
    hits = lists.count(texts, documents["lang"])["harm_words"]
    swapped = pl.Series([
        counterfactual(text)[0] if half(id_, lang) else text
        for id_, lang, text in documents.select("id", "lang", "text").iter_rows()
    ])  # fmt: skip
    before = figures(texts)
    rows = []
    for name, after in (("filter by word list", texts.filter(hits == 0)), ("counterfactual swap of half", swapped)):
        how = f"{len(texts)} documents, {len(after)} after; lists in {len(lists.words)} languages"
        for key, value in figures(after).items():
            rows.append(Row(f"{name}: {key}", "ratio", round(value, 3), "before", "", round(before[key], 3),
                            round(before[key] / value, 2), None, how))  # fmt: skip
    return rows


def figures(texts: pl.Series) -> dict[str, float]:
    """Ratio of mentions of the genders, and gaps beside each list."""
    result = analyse([texts])
    genders = [group["mentions"] for group in result["gender"].values()]
    found = {"ratio of mentions, gender": max(genders) / max(min(genders), 1)}
    for dimension in ("gender", "religion", "origin"):
        for name in ("occupations", "pleasant", "unpleasant"):
            found[f"gap beside {name}, {dimension}"] = gap(result, dimension, name)
    return found
