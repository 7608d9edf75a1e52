"""extract's config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .._contracts.execution import Fanned


class ExtractConfig(Fanned):
    """extract"""

    records_per_shard: int = Field(1500, ge=1, description="web pages, files or groups of entries a shard")
    max_characters: int = Field(
        16_000, ge=500, description="longer works are split at paragraph bounds into documents of at most this length"
    )
    entry_group_characters: int = Field(4_000, ge=1, description="dictionaries: consecutive entries a document")
    min_characters: int = Field(1, ge=1, description="shorter extracted texts go to rejects as empty")
    max_page_bytes: int = Field(
        10_000_000, ge=1, description="larger web pages, mails and sources go to rejects unread"
    )
    extractor: Literal["resiliparse", "trafilatura", "justext"] = Field(
        "resiliparse", description="main text of web pages: 20 times faster than the others, a little more boilerplate"
    )
    page_seconds: float = Field(10.0, gt=0, description="a page that its parser takes longer for goes to rejects")
    parser_memory_mb: int = Field(
        2_000, ge=200, description="address space of the parsers' process; beyond it, rejects"
    )
    split_bytes: int = Field(
        64_000_000, ge=1, description="larger files of JSON lines, Parquet and WARC are shared out in such ranges"
    )
    max_text_bytes: int = Field(2_000_000_000, ge=1, description="a member that is longer decompressed goes to rejects")
    max_line_bytes: int = Field(50_000_000, ge=1, description="longer lines go to rejects, never held whole")
    max_expansion: int = Field(1_000, ge=2, description="times its compressed size that a file over 10 MB may have")
    max_depth: int = Field(4, ge=1, description="archives and compressions inside each other")
