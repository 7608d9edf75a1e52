"""decontaminate's config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .._contracts.execution import Fanned

Method = Literal["gpt3", "palm", "llama", "fuzzy"]

METHODS: dict[str, tuple[int, float]] = {
    "gpt3": (13, 0.0),  # Brown et al. 2020, arXiv 2005.14165, appendix C: any 13-gram
    "palm": (8, 0.7),  # Chowdhery et al. 2022, arXiv 2204.02311, section 8: 70% of the 8-grams
    "llama": (10, 0.8),  # Llama 2, arXiv 2307.09288, appendix A.6: 80% of the tokens in matches of more than 10
    "fuzzy": (4, 0.75),  # ours
}
"""method -> words an n-gram, score from which a document holds an item."""


class DecontaminateConfig(Fanned):
    """decontaminate"""

    method: Method = Field(
        "gpt3",
        description="gpt3: any n-gram; palm: share of an item's n-grams; llama: share of its words in matches; "
        "fuzzy: share of its words that one passage holds in order, so an edited or shortened copy is found",
    )
    ngram_words: int = Field(0, ge=0, description="words an n-gram; 0: the method's own (13, 8, 10, 4)")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="score from which a document holds an item; none: the method's (any, 0.7, 0.8, 0.75)",
    )
    action: Literal["cut", "remove"] = Field("cut", description="cut the span out, or remove the whole document")
    margin_characters: int = Field(200, ge=0, description="cut: so many characters on either side go too (GPT-3: 200)")
    min_piece_characters: int = Field(200, ge=1, description="cut: shorter pieces that remain go too (GPT-3: 200)")
    max_cuts: int = Field(10, ge=1, description="cut: a document cut more often is removed (GPT-3: 10)")
    max_ngram_documents: int = Field(
        10, ge=1, description="an n-gram found in more documents is a common phrase and no leak (GPT-3: 10)"
    )
    whole_item: float = Field(
        0.8, ge=0, le=1, description="but an item of which a document holds this share counts, however many have it"
    )
    min_item_words: int = Field(
        5, ge=1, description="items shorter than an n-gram are looked for whole; below this they are too common"
    )

    @property
    def n(self) -> int:
        """Words an n-gram."""
        return self.ngram_words or METHODS[self.method][0]

    @property
    def score(self) -> float:
        """From which a document holds an item."""
        return METHODS[self.method][1] if self.threshold is None else self.threshold

    @model_validator(mode="after")
    def _lengths(self) -> DecontaminateConfig:
        if self.ngram_words == 1:
            raise ValueError("ngram_words: 2 or more are needed, or 0 for the method's own")
        return self
