"""extract's config."""

from __future__ import annotations

from pydantic import Field

from .execution import Fanned


class ExtractConfig(Fanned):
    """extract"""

    records_per_shard: int = Field(1500, ge=1, description="web pages, files or groups of entries a shard")
    max_characters: int = Field(
        16_000, ge=500, description="longer works are split at paragraph bounds into documents of at most this length"
    )
    entry_group_characters: int = Field(4_000, ge=1, description="dictionaries: consecutive entries a document")
    min_characters: int = Field(1, ge=1, description="shorter extracted texts go to rejects as empty")
    max_page_bytes: int = Field(10_000_000, ge=1, description="larger web pages go to rejects unread")
