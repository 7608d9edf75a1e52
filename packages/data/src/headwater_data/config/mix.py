"""mix's config."""

from __future__ import annotations

from pydantic import Field, model_validator

from .._contracts.config import Config


class MixConfig(Config):
    """mix"""

    weights: dict[str, float] = Field(
        default_factory=dict,
        description="source or category -> factor on its natural share of bytes; a source's goes before its category's",
    )
    total_bytes: int = Field(0, ge=0, description="bytes of training text, repetitions included; 0: what there is")
    max_epochs: float = Field(4.0, gt=0, description="most often that a document may be repeated (Muennighoff 2023: 4)")
    heldout_fraction: float = Field(0.015, ge=0, lt=0.5, description="share of documents held out")
    heldout_max_bytes: int = Field(1_000_000, ge=0, description="cap on the held-out text; 0: none")
    heldout_exclude: tuple[str, ...] = Field((), description="sources or categories that are never held out")
    documents_per_shard: int = Field(10_000, ge=1, description="documents a Parquet shard")
    seed: int = Field(1, description="of the split and the shuffle")

    @model_validator(mode="after")
    def _weights(self) -> MixConfig:
        bad = [name for name, w in self.weights.items() if not 0 <= w < float("inf")]
        if bad:
            raise ValueError(f"weights.{bad[0]}: a finite factor of 0 or more is needed")
        return self
