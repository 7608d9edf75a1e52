"""`headwater-data STAGE`: raw sources to a clean, deduplicated, decontaminated corpus."""

from __future__ import annotations

from . import __version__
from ._contracts import cli
from ._contracts.stage import Stage
from .config import (
    CardConfig,
    ClassifierConfig,
    CleanConfig,
    CollectConfig,
    DecontaminateConfig,
    DedupConfig,
    ExtractConfig,
    FilterConfig,
    MixConfig,
    SignalsConfig,
)

STAGES = [
    Stage(
        "collect",
        "Fetch the sources that the config names, one folder each; the only stage that uses the network.",
        {},
        "sources",
        "about 150 MB of downloads and 90 s at scale tiny; none at smoke; under 1 GB of memory",
        CollectConfig,
        "headwater_data.ingest.collect:collect",
        reuse=False,  # local files are in no fingerprint; what was downloaded and packed is kept all the same
    ),
    Stage(
        "extract",
        "Read every corpus source into documents: web pages to their main text, other formats to plain text.",
        {"sources": ("sources",)},
        "documents",
        "about 20 MB of HTML a second and core; memory of one shard a worker",
        ExtractConfig,
        "headwater_data.ingest.extract:extract",
    ),
    Stage(
        "clean",
        "Edit the text: normalise, drop lines, mask private data; every edit is counted in a column.",
        {"documents": ("documents",)},
        "documents",
        "about 10 MB of text a second and core; memory of one shard a worker",
        CleanConfig,
        "headwater_data.clean.stage:clean",
    ),
    Stage(
        "classifier",
        "Train a quality classifier and an n-gram model: chosen reference sources against raw web; AUC, calibration.",
        {"documents": ("documents",)},
        "classifier",
        "about 2 MB of text a second on one core; memory of the chosen texts and 128 bytes a bucket",
        ClassifierConfig,
        "headwater_data.quality.classifier:classifier",
    ),
    Stage(
        "signals",
        "Add language and quality signals to every document as columns; remove nothing.",
        {"documents": ("documents",), "sources?": ("sources",), "classifier?": ("classifier",)},
        "documents",
        "about 2 MB of text a second and core; memory of one shard a worker",
        SignalsConfig,
        "headwater_data.quality.signals:signals",
    ),
    Stage(
        "filter",
        "Apply the rules of the config to the signal columns; what falls goes to rejects with rule and value.",
        {"documents": ("documents",)},
        "documents",
        "seconds: thresholds only, nothing is recomputed",
        FilterConfig,
        "headwater_data.quality.filter:filter_documents",
    ),
    Stage(
        "dedup",
        "Remove exact, URL and near duplicates (MinHash LSH, clusters by connected components), and repeated passages.",
        {"documents": ("documents",), "earlier?": ("documents",)},
        "documents",
        "about 5 MB of text a second and core; memory of one range of hashes a worker, and of the pairs found",
        DedupConfig,
        "headwater_data.dedup.dedup:dedup",
    ),
    Stage(
        "decontaminate",
        "Remove what the benchmark items hold from the training text, and list item by item where it was.",
        {"documents": ("documents",), "items": ("items",)},
        "documents",
        "about 10 MB of text a second and core",
        DecontaminateConfig,
        "headwater_data.decontaminate.stage:decontaminate",
    ),
    Stage(
        "mix",
        "Weigh sources, languages and quality, hold out whole clusters, shuffle: the corpus in its training order.",
        {"documents": ("documents",)},
        "corpus",
        "seconds; memory of one shard a worker and 50 bytes a document",
        MixConfig,
        "headwater_data.mix:mix",
    ),
    Stage(
        "card",
        "Describe the corpus: funnel, licences, languages, lengths, duplicates, private data; samples to judge.",
        {
            "extracted": ("documents",),
            "edited?": ("documents",),
            "classifier?": ("classifier",),
            "signals?": ("documents",),
            "filtered?": ("documents",),
            "deduped?": ("documents",),
            "clean?": ("documents",),
            "corpus": ("corpus",),
            "tokenizer?": ("tokenizer",),
        },
        "card",
        "seconds; memory of the samples",
        CardConfig,
        "headwater_data.card.stage:card",
    ),
]


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script."""
    return cli.main("headwater-data", __version__, STAGES, argv=argv)
