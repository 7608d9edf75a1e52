"""signals: language and quality signals as columns beside the documents; nothing is removed.

What a rule will make of a value is decided in filter, so that a threshold can change without this being done again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl

from .._contracts.stage import Run
from ..config import SignalsConfig
from ..documents import Block, blocks, count_folder, funnel, part_name, publish_parts, write_part
from ..fanout import fan_out
from .heuristics import SIGNALS, measure
from .language import LanguageIdentifier, find_weights


def signals(run: Run) -> None:
    """The stage: documents -> documents with signal columns."""
    config: SignalsConfig = run.config
    weights = find_weights(run.inputs.get("sources"))
    if weights is None:
        run.log("no language weights among the sources: the declared language stands, without a score")
    work = partial(measure_block, run.work / "parts", weights, config)
    shards = blocks(run.inputs["documents"])
    fan_out(run, "signals", work, shards, config)
    publish_parts(run.work / "parts", run.out)
    counted = count_folder(run.out)
    everything = pl.scan_parquet(run.out / "part-*.parquet")
    counts = everything.group_by("language").agg(pl.len()).sort("len", "language", descending=[True, False])
    languages = counts.collect(engine="streaming")
    means = everything.select(pl.col(SIGNALS).mean()).collect(engine="streaming").row(0, named=True)
    run.write_metrics(
        {
            **funnel(counted, counted),
            "languages": dict(languages.iter_rows()),
            "mean": {name: round(value or 0.0, 6) for name, value in means.items()},
        }
    )
    run.log(f"{len(counted)} documents, {len(languages)} languages, {len(SIGNALS)} signals")


def measure_block(parts: Path, weights: Path | None, config: SignalsConfig, block: Block) -> None:
    """Add the signal columns to one block and write it."""
    documents = block.read()
    texts = documents["text"].to_list()
    if weights is None:
        language = documents["lang"].replace("", "und").alias("language")
        score = pl.Series("language_score", [None] * len(texts), pl.Float64)
    else:
        identify = LanguageIdentifier(weights)
        found = [identify(text, config.language_characters) for text in texts]
        language = pl.Series("language", [label for label, _ in found], pl.String)
        score = pl.Series("language_score", [p for _, p in found], pl.Float64)
    declared = documents["lang"]
    measured = documents.with_columns(
        lang=pl.when(declared == "").then(language).otherwise(declared), language=language, language_score=score
    ).hstack(measure(documents["text"], config.definitions))
    write_part(parts / part_name(block.number), measured)
