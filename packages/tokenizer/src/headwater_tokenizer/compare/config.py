"""Configuration of the stage `compare`; every field with its unit."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from headwater_tokenizer._contracts.config import Config
from headwater_tokenizer.config import AdoptConfig


class ParityConfig(Config):
    """Which of the documents say the same in several languages."""

    source: str = Field(description="source of the parallel documents")
    pattern: str = Field(
        description="regular expression searched in `field`, with the groups `language` and `key`; documents of one "
        "key are translations of each other"
    )
    field: Literal["id", "url"] = Field("url", description="where the pattern is searched")
    base: str = Field("en", description="language that the others are held against, as the pattern finds it")

    @field_validator("pattern")
    @classmethod
    def _has_its_groups(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as e:
            raise ValueError(f"pattern {pattern}: not a regular expression ({e})") from None
        if not {"language", "key"} <= set(groups):
            raise ValueError(f"pattern {pattern}: needs the groups (?P<language>...) and (?P<key>...)")
        return pattern


class ModelConfig(Config):
    """Shape of the planned model, to weigh the vocabulary against."""

    hidden: int = Field(gt=0, description="width of the embedding")
    layers: int = Field(gt=0, description="transformer layers, counted as 12 hidden^2 parameters each")
    tied: bool = Field(False, description="whether input and output embedding are one matrix")


class JudgeConfig(Config):
    """Small models that are trained with each tokenizer, where headwater-model is installed."""

    flops: float = Field(gt=0, description="training FLOPs of each model, the same for all")
    tokenizers: tuple[str, ...] = Field(
        (), description="which; none named: those that were trained (not adopted) and lose nothing of a text"
    )
    seeds: tuple[int, ...] = Field((1,), min_length=1, description="a model each; the spread says what is noise")
    plan: dict[str, Any] = Field({}, description="parameters of headwater-model plan; the budget is `flops`")
    pretrain: dict[str, Any] = Field({}, description="parameters of headwater-model pretrain")


class CompareConfig(Config):
    """What `headwater-tokenizer compare` measures; a part without its input or config is left out."""

    references: dict[str, AdoptConfig] = Field(
        {}, description="name -> existing tokenizer of the input `sources` that stands in the table, too, as `adopt` "
        "takes it"
    )  # fmt: skip
    sample_bytes: int = Field(
        10_000_000, gt=0, description="training text that is searched for entries that hardly occur, in bytes"
    )
    under_trained_below: int = Field(
        10, ge=1, description="an entry that occurs in the sample less often than this counts as under-trained"
    )
    seed: int = Field(0, description="seed of the sample, of the words drawn and of the documents shown")
    code_sources: tuple[str, ...] | None = Field(
        None, description="sources of the corpus that are code; null: those of category misc"
    )
    parity: ParityConfig | None = Field(None, description="parallel documents among those of the input `documents`")
    morphemes: dict[str, str] = Field(
        {},
        description="language -> source of the input `sources` that holds its hunspell dictionary (.dic and .aff) or a "
        "table of segmented words (.tsv: word TAB morphemes, blanks between)",
    )
    morpheme_words: int = Field(5000, gt=0, description="words of a language at most, drawn by hash")
    model: ModelConfig | None = Field(None, description="the planned model")
    speed_bytes: int = Field(4_000_000, gt=0, description="held-out text that speeds are taken on, in bytes")
    page_documents: int = Field(12, ge=0, description="held-out documents shown on the page, sources in turn")
    page_characters: int = Field(1500, gt=0, description="characters shown of each")
    judge: JudgeConfig | None = Field(None, description="equal-compute models; null: none are trained")
