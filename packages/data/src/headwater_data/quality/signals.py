"""signals: language and quality signals as columns beside the documents; nothing is removed.

What a rule will make of a value is decided in filter, so that a threshold can change without this being done again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl

from .._contracts.errors import UsageError
from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import SignalsConfig
from ..documents import Block, blocks, count_folder, funnel, part_name, publish_parts, write_part
from ..harm.wordlists import COLUMNS, WordLists, classify, find_wordlists
from .classifier import QualityScorer
from .heuristics import SIGNALS, measure
from .language import LanguageIdentifier, count_stop_words, find_weights


def signals(run: Run) -> None:
    """The stage: documents -> documents with signal columns."""
    config: SignalsConfig = run.config
    weights = find_weights(run.inputs.get("sources"), besides=config.quality_model.source)
    quality = _quality_model(run)
    if weights is None:
        run.log("no language weights among the sources: the declared language stands, without a score")
    lists = find_wordlists(run.inputs.get("sources"))
    work = partial(measure_block, run.work / "parts", weights, quality, lists, config)
    shards = blocks(run.inputs["documents"])
    fan_out(run, "signals", work, shards, config)
    publish_parts(run.work / "parts", run.out)
    counted = count_folder(run.out)
    everything = pl.scan_parquet(run.out / "part-*.parquet")
    counts = everything.group_by("language").agg(pl.len()).sort("len", "language", descending=[True, False])
    languages = counts.collect(engine="streaming")
    measured = [*SIGNALS, *(["quality_score", "perplexity"] if quality else [])]
    means = everything.select(pl.col(measured).mean()).collect(engine="streaming").row(0, named=True)
    run.write_metrics(
        {
            **funnel(counted, counted),
            "languages": dict(languages.iter_rows()),
            "mean": {name: round(value or 0.0, 6) for name, value in means.items()},
        }
    )
    run.log(f"{len(counted)} documents, {len(languages)} languages, {len(SIGNALS)} signals")


def _quality_model(run: Run) -> tuple[Path, str] | None:
    """(folder of the classifier or file of a model, label of the model or empty)."""
    own = run.config.quality_model
    if own.source:
        found = find_weights(run.inputs.get("sources"), name=own.source)
        if found is None:
            raise UsageError(
                f"signals.quality_model.source: no source {own.source} of role weights with a .bin or .ftz file; "
                "collect it, or leave the setting out"
            )
        return found, own.label
    return (run.inputs["classifier"], "") if "classifier" in run.inputs else None


def _harm(texts: pl.Series, language: pl.Series, lists: WordLists | None, config: SignalsConfig) -> pl.DataFrame:
    """harm_words, harm_share, harm_score; null where there is no list or classifier."""
    found = pl.DataFrame({name: pl.Series([None] * len(texts), dtype=pl.Float64) for name in COLUMNS})
    if lists is not None:
        found = found.with_columns(lists.count(texts, language))
    if config.harm_classifier:
        scores = classify(config.harm_classifier, texts.to_list(), config.harm_level == "line")
        found = found.with_columns(harm_score=pl.Series(scores, dtype=pl.Float64))
    return found


def measure_block(
    parts: Path,
    weights: Path | None,
    quality: tuple[Path, str] | None,
    lists: WordLists | None,
    config: SignalsConfig,
    block: Block,
) -> None:
    """Add the signal columns to one block and write it."""
    documents = block.read()
    texts = documents["text"].to_list()
    if weights is None:
        language = documents["lang"].replace("", "und").alias("language")
        share = pl.Series("language_share", [None] * len(texts), pl.Float64)
        score = pl.Series("language_score", [None] * len(texts), pl.Float64)
    else:
        identify = LanguageIdentifier(weights)
        found = [identify(text, config.language_characters) for text in texts]
        language = pl.Series("language", [label for label, _ in found], pl.String)
        score = pl.Series("language_score", [p for _, p in found], pl.Float64)
        size, windows = config.language_characters, config.language_windows
        shares = [identify.share(text, label, size, windows) for text, (label, _) in zip(texts, found, strict=True)]
        share = pl.Series("language_share", shares, pl.Float64)
    declared = documents["lang"]
    measured = documents.with_columns(
        lang=pl.when(declared == "").then(language).otherwise(declared),
        language=language,
        language_score=score,
        language_share=share,
    ).hstack(measure(documents["text"], config.definitions))
    own = count_stop_words(documents["text"], measured["language"])
    measured = measured.with_columns(gopher_stop_words=pl.coalesce(own, "gopher_stop_words"))
    measured = measured.hstack(_harm(documents["text"], language, lists, config))
    if quality is not None:
        path, label = quality
        scorer = QualityScorer(path, {"label": label}) if label else QualityScorer.of_artefact(path)
        measured = measured.with_columns(scorer.score(texts), scorer.perplexity(texts))
    write_part(parts / part_name(block.number), measured)
