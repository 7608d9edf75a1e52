"""Configuration of the two stages; every field with its unit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from headwater_tokenizer._contracts.config import Config
from headwater_tokenizer.special import NAMED, STARTING_BYTES


class TrainConfig(Config):
    """What `headwater-tokenizer train` learns, and from how much text."""

    vocab_size: int = Field(
        8192, gt=0, description="entries in all: 256 bytes, learned tokens, named special tokens and reserved ids"
    )
    pad_to: int = Field(
        128, gt=0, description="the vocabulary is filled up with reserved ids to a multiple of this: tensor "
        "parallelism splits the embedding's rows evenly, and matrix kernels like round sizes"
    )  # fmt: skip
    reserved: int = Field(16, ge=0, description="spare ids at least, for special tokens added after pre-training")
    min_frequency: int = Field(2, ge=1, description="occurrences in the sample that a pair needs to become a token")
    split: Literal["gpt2", "gpt4"] = Field(
        "gpt4", description="pattern that cuts text before merging: GPT-2's, or GPT-4's (any case of 's and 'll, "
        "one leading mark with a word, newlines apart from blanks)"
    )  # fmt: skip
    digits: int = Field(
        2, ge=0, le=9, description="longest run of digits in one piece, 0 for no limit; nanochat measured 2 better "
        "than 3 and 1 at 32,000 entries"
    )  # fmt: skip
    max_token_bytes: int | None = Field(
        32, ge=2, description="longest token in bytes, null for no limit; keeps rulers (----) from taking many entries"
    )
    sample_bytes: int = Field(
        50_000_000, gt=0, description="text to learn from, in bytes, drawn from the corpus's train split"
    )
    seed: int = Field(0, description="seed of the draw of the sample")

    @model_validator(mode="after")
    def _room_for_learning(self) -> TrainConfig:
        least = STARTING_BYTES + len(NAMED) + self.reserved
        if self.vocab_size <= least:
            raise ValueError(
                f"vocab_size {self.vocab_size} leaves nothing to learn: {STARTING_BYTES} bytes, {len(NAMED)} named and "
                f"{self.reserved} reserved ids are {least} already; raise vocab_size or lower reserved"
            )
        return self

    @property
    def learned(self) -> int:
        """Entries of the BPE model itself: the bytes and the learned tokens."""
        return self.vocab_size - len(NAMED) - self.reserved


class EncodeConfig(Config):
    """How `headwater-tokenizer encode` runs; none of it changes a byte of the token files."""

    workers: int = Field(0, ge=0, description="processes that encode side by side; 0 for one a core")
