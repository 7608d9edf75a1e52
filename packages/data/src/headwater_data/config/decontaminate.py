"""decontaminate's config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .execution import Fanned


class DecontaminateConfig(Fanned):
    """decontaminate"""

    ngram_words: int = Field(13, ge=2, description="words an n-gram (GPT-3, appendix C: 13)")
    action: Literal["cut", "remove"] = Field("cut", description="cut the span out, or remove the whole document")
    margin_characters: int = Field(200, ge=0, description="cut: so many characters on either side go too (GPT-3: 200)")
    min_piece_characters: int = Field(200, ge=1, description="cut: shorter pieces that remain go too (GPT-3: 200)")
    max_cuts: int = Field(10, ge=1, description="cut: a document cut more often is removed (GPT-3: 10)")
    max_ngram_documents: int = Field(
        10, ge=1, description="an n-gram found in more documents is a common phrase and no leak (GPT-3: 10)"
    )
    min_item_words: int = Field(
        8, ge=1, description="items shorter than ngram_words are looked for whole; below this they are too common"
    )

    @model_validator(mode="after")
    def _lengths(self) -> DecontaminateConfig:
        if self.min_item_words > self.ngram_words:
            raise ValueError("min_item_words must not exceed ngram_words")
        return self
