"""Parameters of the comparison."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .._contracts.config import Config


class CompareConfig(Config):
    """Which runs and items are compared, and how closely."""

    title: str = Field("Headwater: runs on the same items", description="heading of the page")
    order: list[str] = Field(
        ["base"], description="runs from left to right, a pair's first one before; those not named follow by name"
    )
    tasks: list[str] | None = Field(None, description="tasks to compare; null: all that two runs have")
    by_category: list[str] = Field([], description="tasks of which each category is compared too, as TASK:CATEGORY")
    items: Literal["common", "same"] = Field(
        "common", description="where runs have other items: compare the common ones and say so, or refuse"
    )
    pairs: Literal["all", "first"] = Field("all", description="every pair of runs, or each with the first one only")
    resamples: int = Field(10_000, ge=1000, description="of the bootstrap and of the permutation test")
    seed: int = Field(1234, ge=0, description="of both")
