"""card's config."""

from __future__ import annotations

from pydantic import Field

from .._contracts.config import Config


class CardConfig(Config):
    """card"""

    title: str = Field("Corpus", description="of the card and of the page of samples")
    description: str = Field("", description="what the corpus is for, in a sentence or two")
    samples: int = Field(8, ge=1, le=200, description="documents shown of each stratum: stage, rule and source")
    sample_characters: int = Field(6_000, ge=200, description="longest text shown of a sample")
    max_samples: int = Field(1_500, ge=1, description="most samples on the page; larger strata give way first")
    token_sample: int = Field(100, ge=1, description="documents a source from which tokens a byte are counted")
    seed: int = Field(1, description="of the choice of samples")
