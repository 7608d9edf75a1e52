"""dedup's config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .execution import Fanned


class DedupConfig(Fanned):
    """dedup"""

    shingle_words: int = Field(5, ge=1, description="words a shingle (FineWeb: 5)")
    bands: int = Field(14, ge=1, description="LSH bands (FineWeb: 14)")
    rows: int = Field(
        8, ge=1, description="hashes a band (FineWeb: 8); a pair of Jaccard s meets with 1-(1-s^rows)^bands"
    )
    verify_jaccard: float = Field(
        0.7, ge=0, le=1, description="a candidate pair counts from this true Jaccard of its shingles on; 0: unverified"
    )
    keep: Literal["longest", "first"] = Field(
        "longest", description="which member of a cluster survives: most characters, or first in order of sources"
    )
    prefer: tuple[str, ...] = Field((), description="sources whose documents survive over all others, best first")
    seed: int = Field(1, description="of the hash functions")
