"""dedup's config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from .._contracts.config import Config
from .._contracts.execution import Fanned

PRESETS: dict[str, dict] = {
    # as released, arXiv 2406.17557, section 3.4: the bands alone decide
    "fineweb": {"shingle_words": 5, "bands": 14, "rows": 8, "verify_jaccard": 0.0},
    # arXiv 2306.01116, appendix G.3: 9,000 hashes in 20 bands of 450, then substrings of 50 tokens, then URLs
    "refinedweb": {
        "shingle_words": 5, "bands": 20, "rows": 450, "verify_jaccard": 0.0, "substrings": {"min_words": 50},
    },
    # arXiv 2005.14165, appendix A: Spark's MinHashLSH with 10 hashes over bags of words; it states no threshold
    "gpt3": {"shingle_words": 1, "bands": 10, "rows": 1, "verify_jaccard": 0.8},
    # Lee et al. 2022, arXiv 2107.06499, section 4 and appendix A
    "lee": {
        "shingle_words": 5, "bands": 450, "rows": 20, "verify_jaccard": 0.8, "verify_edit": 0.8,
        "substrings": {"min_words": 50},
    },
}  # fmt: skip


class PassagesConfig(Config):
    """Whole lines, paragraphs or documents that stood before, word for word."""

    unit: Literal["off", "line", "paragraph", "document"] = Field(
        "off", description="what is compared; the first one in the order of the documents stays"
    )
    min_words: int = Field(8, ge=1, description="shorter ones are never removed: list items, headings, greetings")
    bloom: bool = Field(
        False, description="look up a Bloom filter (Dolma) instead of sorting: one pass, fixed memory, for streams"
    )
    expected: int = Field(10_000_000, ge=1, description="bloom: how many different ones the filter is made for")
    false_positives: float = Field(
        1e-5, gt=0, lt=1, description="bloom: share of new ones taken for old when `expected` are in"
    )


class SubstringsConfig(Config):
    """Exact substrings that stand more than once, within a document or across (Lee et al. 2022)."""

    min_words: int = Field(0, ge=0, description="from this length on (Lee et al.: 50 tokens); 0: off")
    keep: Literal["first", "none"] = Field("first", description="of the occurrences, which stay")
    min_left_characters: int = Field(
        20, ge=0, description="a document of which less is left goes whole (RefinedWeb: 20)"
    )


class DedupConfig(Fanned):
    """dedup"""

    preset: Literal["fineweb", "refinedweb", "gpt3", "lee"] | None = Field(
        None, description="a published setting; what is written beside it goes before it"
    )
    urls: bool = Field(True, description="of several documents from one address one stays; parts of one work are one")
    shingle_words: int = Field(5, ge=1, description="words a shingle (FineWeb: 5)")
    bands: int = Field(14, ge=1, description="LSH bands (FineWeb: 14)")
    rows: int = Field(
        8, ge=1, description="hashes a band (FineWeb: 8); a pair of Jaccard s meets with 1-(1-s^rows)^bands"
    )
    verify_jaccard: float = Field(
        0.7, ge=0, le=1, description="a candidate pair counts from this true Jaccard of its shingles on; 0: unverified"
    )
    verify_edit: float = Field(
        0.0, ge=0, le=1, description="and from this edit similarity of its words on (Lee et al.: 0.8); 0: not asked"
    )
    cluster_jaccard: float = Field(
        0.5,
        ge=0,
        le=1,
        description="candidates from this on share a `cluster`, which mix never splits; none is removed",
    )
    keep: str = Field(
        "longest",
        description="which of a cluster survives: longest, first (in order of sources), or the highest in a column; "
        "`-COLUMN`: the lowest",
    )
    prefer: tuple[str, ...] = Field((), description="sources whose documents survive over all others, best first")
    scope: str = Field(
        "corpus",
        description="duplicates count within: corpus, source, category, or a field of meta as `meta.snapshot`",
        pattern=r"^(corpus|source|category|meta\.\S+)$",
    )
    passages: PassagesConfig = Field(default_factory=PassagesConfig)
    substrings: SubstringsConfig = Field(default_factory=SubstringsConfig)
    passages_exempt: tuple[str, ...] = Field(
        (), description="sources or categories out of which no passage or substring is cut, as code"
    )
    seed: int = Field(1, description="of the hash functions")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: dict) -> dict:
        return {**PRESETS.get(values.get("preset") or "", {}), **values}

    @field_validator("keep")
    @classmethod
    def _named(cls, keep: str) -> str:
        if not keep.strip("-"):
            raise ValueError("longest, first, or a column's name is needed")
        return keep
