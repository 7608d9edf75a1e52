"""mix's config."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from .._contracts.config import Config
from .._contracts.execution import Fanned


class QualityBins(Config):
    """Weights by a signal: better text more often."""

    column: str = Field("", description="a column of numbers, as quality_score; none: off")
    edges: tuple[float, ...] = Field((), description="bounds between the bins, ascending; a value on one is above it")
    weights: tuple[float, ...] = Field((), description="factor of each bin, lowest first: one more than edges")

    @model_validator(mode="after")
    def _fits(self) -> QualityBins:
        if self.column and len(self.weights) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} bins: as many weights are needed")
        if any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError("edges must ascend")
        _check_factors({f"bin {i}": w for i, w in enumerate(self.weights)})
        return self


class CanariesConfig(Config):
    """Secrets planted in the training text, to measure by what a model recalls of them (Carlini et al. 2019)."""

    count: int = Field(0, ge=0, description="canaries for each entry of repeats; 0: none are planted")
    repeats: tuple[int, ...] = Field(
        (0, 1, 4, 16), description="how often each stands in the training text; those of 0 never do, for comparison"
    )
    format: str = Field(
        "The access code of {name} is {secret}.", description="text of a canary: {name} once, then {secret} once"
    )
    digits: int = Field(6, ge=2, le=18, description="of a secret: the space has 10 ** digits of them")
    seed: int = Field(1, description="of names and secrets; the order is that of mix.seed")

    @model_validator(mode="after")
    def _fits(self) -> CanariesConfig:
        name, secret = self.format.find("{name}"), self.format.find("{secret}")
        if self.format.count("{name}") != 1 or self.format.count("{secret}") != 1 or name > secret:
            raise ValueError("format holds {name} once and after it {secret} once")
        if not self.repeats or any(r < 0 for r in self.repeats) or len(set(self.repeats)) < len(self.repeats):
            raise ValueError("repeats are numbers of 0 or more, each named once")
        return self


class MixConfig(Fanned):
    """mix"""

    weights: dict[str, float] = Field(
        default_factory=dict,
        description="source or category -> factor on its natural share of bytes; a source's goes before its category's",
    )
    languages: dict[str, float] = Field(default_factory=dict, description="language -> factor, beside the weights")
    quality: QualityBins = Field(default_factory=QualityBins)
    temperature: float = Field(
        1.0,
        ge=1,
        description="share of each group ~ natural share ** (1/T): 1 leaves it, more lifts small ones (XLM, mT5)",
    )
    temperature_over: Literal["source", "category", "lang"] = Field("source", description="what the groups are")
    total_bytes: int = Field(0, ge=0, description="bytes of training text, repetitions included; 0: what there is")
    total_tokens: int = Field(0, ge=0, description="the same in tokens, at bytes_per_token; 0: total_bytes counts")
    bytes_per_token: float = Field(4.0, gt=0, description="of the tokenizer to come: about 4 for English")
    max_epochs: float = Field(4.0, gt=0, description="most often that a document may be repeated (Muennighoff 2023: 4)")
    epochs: dict[str, float] = Field(default_factory=dict, description="source or category -> its own max_epochs")
    heldout_fraction: float = Field(0.015, ge=0, lt=0.5, description="share of documents held out")
    heldout_max_bytes: int = Field(1_000_000, ge=0, description="cap on the held-out text; 0: none")
    heldout_exclude: tuple[str, ...] = Field((), description="sources or categories that are never held out")
    heldout_by: Literal["cluster", "work"] = Field(
        "cluster",
        description="what is held out whole: dedup's clusters of similar documents, or works with all of their pieces",
    )
    canaries: CanariesConfig = Field(default_factory=CanariesConfig)
    documents_per_shard: int = Field(10_000, ge=1, description="documents a Parquet shard")
    seed: int = Field(1, description="of the split and the shuffle")

    @model_validator(mode="after")
    def _weights(self) -> MixConfig:
        _check_factors({f"weights.{name}": w for name, w in self.weights.items()})
        _check_factors({f"languages.{name}": w for name, w in self.languages.items()})
        _check_factors({f"epochs.{name}": w for name, w in self.epochs.items()})
        if self.total_bytes and self.total_tokens:
            raise ValueError("total_bytes and total_tokens: give one of them")
        return self

    @property
    def budget(self) -> int:
        """Bytes of training text; 0: what there is."""
        return self.total_bytes or round(self.total_tokens * self.bytes_per_token)


def _check_factors(factors: dict[str, float]) -> None:
    bad = [name for name, factor in factors.items() if not 0 <= factor < float("inf")]
    if bad:
        raise ValueError(f"{bad[0]}: a finite factor of 0 or more is needed")
