"""What the thresholds and stop words by language change: manuals in many languages, judged as English and as their own.

Input: the pages of a finished lineage's sources of category internet whose language languages.yaml has. A translated
manual is as good a text in each language, so a rule set that fits keeps about the same share of each.
"""

from __future__ import annotations

import polars as pl

from benchmarks.data import artefacts
from benchmarks.frame import Row
from headwater_data.config import Definitions, published_rules
from headwater_data.config.quality import language_tables
from headwater_data.quality.heuristics import SIGNALS, measure
from headwater_data.quality.language import count_stop_words
from headwater_data.quality.rules import verdicts


def run(quick: bool) -> list[Row]:
    """A row a language: share of its pages that Gopher's and FineWeb's rules keep."""
    known = ["en", *language_tables()["stop_words"]]
    columns = ["text", "source", "category", "language"]
    pages = pl.read_parquet(artefacts() / "signals" / "part-*.parquet", columns=columns)
    pages = pages.filter((pl.col("category") == "internet") & pl.col("language").is_in(known))
    rules = {n: r for n, r in published_rules().items() if r.signal in SIGNALS and n.startswith(("gopher", "fineweb"))}
    rows = []
    for (language,), found in pages.group_by("language", maintain_order=True):
        if len(found) < 20:
            continue
        found = found.head(20) if quick else found
        measured = found.hstack(measure(found["text"], Definitions(words="punctuation")))
        own = count_stop_words(found["text"], found["language"])
        fitted = measured.with_columns(gopher_stop_words=pl.coalesce(own, "gopher_stop_words"))
        kept, as_english = (
            verdicts(frame, rules)[0]["rule"].is_null().mean()
            for frame in (fitted, measured.with_columns(language=pl.lit("en")))
        )
        rows.append(
            Row(str(language), "share kept", round(kept, 3), "English thresholds", "", round(as_english, 3),
                round(kept / max(as_english, 0.001), 2), None, f"{len(found)} pages, words and punctuation marks")
        )  # fmt: skip
    return sorted(rows, key=lambda row: row.work)
