"""The stage as the command line declares it."""

from __future__ import annotations

from .._contracts.stage import Stage
from .config import ReportConfig

STAGE = Stage(
    name="report",
    summary="Write one page (HTML and Markdown) on everything that a run made.",
    reads={
        "sources?": ("sources",),
        "items?": ("items",),
        "extracted?": ("documents",),
        "edited?": ("documents",),
        "classifier?": ("classifier",),
        "signals?": ("documents",),
        "filtered?": ("documents",),
        "deduped?": ("documents",),
        "clean?": ("documents",),
        "corpus?": ("corpus",),
        "tokenizer?": ("tokenizer",),
        "tokens?": ("tokens",),
        "comparison?": ("comparison",),
        "card?": ("card",),
        "plan?": ("plan",),
        "checkpoint?": ("checkpoint",),
        "base?": ("export",),
        "compressor?": ("results",),
        "instructions?": ("instructions",),
        "preferences?": ("preferences",),
        "sft?": ("export",),
        "reward?": ("export",),
        "dpo?": ("export",),
        "ppo?": ("export",),
        "ppo-ptx?": ("export",),
        "outcome?": ("outcome",),
        "unseen?": ("unseen",),
        "toxicity?": ("classifier",),
        "results-base?": ("results",),
        "results-sft?": ("results",),
        "results-dpo?": ("results",),
        "results-ppo?": ("results",),
        "results-ppo-ptx?": ("results",),
        "leakage?": ("results",),
        "paired?": ("report",),
    },
    writes="report",
    cost="seconds; it reads every input's bytes once to verify them, and keeps little in memory",
    config=ReportConfig,
    run="headwater_eval.report.build:report",
    reuse=False,  # run records and templates are in no fingerprint
)
