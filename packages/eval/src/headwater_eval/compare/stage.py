"""The stage as the command line declares it."""

from __future__ import annotations

from .._contracts.stage import Stage
from .config import CompareConfig

STAGE = Stage(
    name="compare",
    summary="Compare results of several models on the same items: differences, flips, paired tests.",
    reads={"*": ("results",)},
    writes="report",
    cost="seconds a pair of runs; memory for the rows of all runs",
    config=CompareConfig,
    section="compare-runs",  # `compare` is the tokenizers'
    run="headwater_eval.compare.build:run",
)
