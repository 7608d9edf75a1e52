"""The stage as the command line declares it."""

from __future__ import annotations

from .._contracts.stage import Stage
from .config import LeakageConfig

STAGE = Stage(
    name="leakage",
    summary="Measure what a model gives away of its training text: passages, membership, canaries, private data.",
    reads={"model": ("export",), "corpus": ("corpus",)},
    writes="results",
    cost="half a minute a model of 2 M parameters on one core; streams the training text a few times",
    config=LeakageConfig,
    run="headwater_eval.leakage.build:run",
    code=("headwater_model",),
)
