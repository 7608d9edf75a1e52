"""Configuration of the two stages; every field with its unit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from headwater_tokenizer._contracts.config import Config
from headwater_tokenizer._contracts.execution import Fanned
from headwater_tokenizer.special import NAMED, STARTING_BYTES

Algorithm = Literal[
    "bpe", "wordpiece", "unigram", "sentencepiece-bpe", "sentencepiece-unigram", "words", "moses", "characters", "bytes"
]  # fmt: skip
WITH_BYTE_FALLBACK = ("unigram", "sentencepiece-bpe", "sentencepiece-unigram", "characters")


class TrainConfig(Fanned):
    """What `headwater-tokenizer train` learns, and from how much text."""

    algorithm: Algorithm = Field(
        "bpe", description="bpe: byte-level BPE; wordpiece: BERT's; unigram: Unigram over the pieces of the split; "
        "sentencepiece-bpe, sentencepiece-unigram: on the raw stream, cut at blanks and line ends only; "
        "words: between white space; moses: words by the Moses rules; characters; bytes: ByT5, nothing is learned"
    )  # fmt: skip
    vocab_size: int = Field(
        8192, gt=0, description="entries in all: learned ones (bytes included), named special tokens and reserved ids; "
        "`bytes` has its 256 and the special ones whatever this says"
    )  # fmt: skip
    pad_to: int = Field(
        128, gt=0, description="the vocabulary is filled up with reserved ids to a multiple of this: tensor "
        "parallelism splits the embedding's rows evenly, and matrix kernels like round sizes"
    )  # fmt: skip
    reserved: int = Field(16, ge=0, description="spare ids at least, for special tokens added after pre-training")
    normalization: Literal["none", "nfc", "nfd", "nfkc", "nfkd"] = Field(
        "none", description="Unicode normalisation of text before anything else; none keeps every byte"
    )
    lowercase: bool = Field(False, description="whether text is put in lower case after normalisation")
    min_frequency: int = Field(
        2, ge=1, description="occurrences in the sample that a pair (BPE, WordPiece), a word (words, moses), a piece "
        "of text (unigram) or a character (characters) needs to be learned from"
    )  # fmt: skip
    split: Literal["gpt2", "gpt4", "llama3"] = Field(
        "gpt4", description="pattern that cuts text first (bpe, unigram): GPT-2's, or GPT-4's (any case of 's and 'll, "
        "one leading mark with a word, newlines apart from blanks), which is Llama 3's, too"
    )  # fmt: skip
    digits: int = Field(
        2, ge=0, le=9, description="longest run of digits in one piece, 0 for no limit: 1 is PaLM's and Llama 2's, "
        "3 GPT-4's and Llama 3's; nanochat measured 2 better than both at 32,000 entries"
    )  # fmt: skip
    scripts: bool = Field(
        False, description="whether a run of letters ends where another script begins (bpe, unigram): Latin, Greek, "
        "Cyrillic, Han with Kana, Arabic and ten more by name, all others as one"
    )  # fmt: skip
    blank_runs: int = Field(
        0, ge=0, le=128, description="every run of 2 to so many blanks gets an entry (bpe), whatever the sample holds: "
        "indentation of code; 24 is GPT-NeoX-20B's (Black et al. 2022, arXiv 2204.06745, section 3.2)"
    )  # fmt: skip
    byte_fallback: bool = Field(
        True, description="whether a character without an entry is written as its bytes' 256 entries instead of as "
        "unknown (unigram, sentencepiece-*, characters)"
    )  # fmt: skip
    coverage: float = Field(
        0.9995, gt=0, le=1, description="share of the sample's characters that get an entry each, the commonest first "
        "(unigram, sentencepiece-*, characters)"
    )  # fmt: skip
    max_token_bytes: int | None = Field(
        32, ge=2, description="longest token in bytes (bpe), null for no limit; keeps rulers (----) from taking entries"
    )
    language: str = Field("en", description="whose abbreviations and apostrophes the Moses rules know")
    max_pieces: int = Field(
        10_000_000, ge=1, description="distinct pieces to learn from at most, the commonest (all but sentencepiece-*, "
        "bytes): bounds the memory of learning, some 100 bytes each; the metrics say what share of the text they are"
    )  # fmt: skip
    workers: int = Field(
        0, ge=0, exclude=True, description="row groups counted side by side; 0 for one a core, fewer where the corpus "
        "is small; the result does not depend on it"
    )  # fmt: skip
    sample_bytes: int = Field(
        50_000_000, gt=0, description="text to learn from, in bytes, drawn from the corpus's train split"
    )
    source_weights: dict[str, float] = Field(
        {}, description="how much likelier a source's documents are drawn than their share of the corpus, 1 if not "
        "named, 0 for never"
    )  # fmt: skip
    language_weights: dict[str, float] = Field({}, description="the same by language (the corpus's column lang)")
    seed: int = Field(0, description="seed of the draw of the sample")

    @model_validator(mode="after")
    def _room_for_learning(self) -> TrainConfig:
        first = STARTING_BYTES if self.algorithm == "bpe" or self.byte_fallback and self.has_fallback else 0
        least = first + len(NAMED) + self.reserved
        if self.algorithm != "bytes" and self.vocab_size <= least:
            bytes_ = f"{STARTING_BYTES} bytes, " if first else ""
            raise ValueError(
                f"vocab_size {self.vocab_size} leaves nothing to learn: {bytes_}{len(NAMED)} named and "
                f"{self.reserved} reserved ids are {least} already; raise vocab_size or lower reserved"
            )
        if self.max_token_bytes is not None and self.blank_runs >= self.max_token_bytes:
            raise ValueError(
                f"blank_runs {self.blank_runs}: max_token_bytes {self.max_token_bytes} allows runs of at most "
                f"{self.max_token_bytes - 1}"
            )
        if self.algorithm == "bpe" and self.blank_runs > self.learned - STARTING_BYTES:
            raise ValueError(f"blank_runs {self.blank_runs} needs more entries than vocab_size {self.vocab_size} has")
        for name, weight in (self.source_weights | self.language_weights).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weight {weight} of {name}: must be 0 or more")
        return self

    @property
    def has_fallback(self) -> bool:
        """Whether the algorithm can fall back to bytes."""
        return self.algorithm in WITH_BYTE_FALLBACK

    @property
    def learned(self) -> int:
        """Entries of the algorithm itself, bytes included; the unknown token is not among them."""
        return STARTING_BYTES if self.algorithm == "bytes" else self.vocab_size - len(NAMED) - self.reserved


class EncodeConfig(Fanned):
    """How `headwater-tokenizer encode` runs; only `per_source` adds to what it makes."""

    workers: int = Field(
        0, ge=0, exclude=True, description="row groups encoded side by side; 0 for one a core, fewer where the corpus "
        "is small; the result does not depend on it"
    )  # fmt: skip
    per_source: bool = Field(
        False, description="whether each source gets token files of its own beside, SPLIT-SOURCE.bin/.idx, to blend by "
        "weight in training"
    )  # fmt: skip


class MergeConfig(Config):
    """`headwater-tokenizer merge` has nothing to set."""


class SubsetConfig(Config):
    """What `headwater-tokenizer subset` takes of the train split; the held-out split stays whole."""

    tokens: int | None = Field(10_000_000, gt=0, description="tokens at most, in whole documents; null for no limit")
    sources: tuple[str, ...] = Field((), description="only documents of these sources; none named: of all")
    languages: tuple[str, ...] = Field((), description="only documents of these languages; none named: of all")
    seed: int = Field(0, description="seed of the draw")


class AdoptConfig(Config):
    """Which existing tokenizer `headwater-tokenizer adopt` takes."""

    source: str = Field(description="name of the source that holds it")
    file: str = Field(
        description="its file: FILE.tiktoken (ranks of byte strings), FILE.json (a tokenizer.json) or FILE.model "
        "(sentencepiece)"
    )
    split: Literal["gpt2", "gpt4", "llama3"] = Field(
        "gpt4", description="pattern that cuts text first, which a rank file does not say: gpt2 or gpt4 (cl100k)"
    )
    digits: int = Field(
        3,
        ge=0,
        le=9,
        description="longest run of digits in one piece, for rank files: 0 (no limit) is GPT-2's, 3 GPT-4's",
    )
    pad_to: int = Field(128, gt=0, description="the vocabulary is filled up with reserved ids to a multiple of this")
    reserved: int = Field(16, ge=0, description="spare ids at least")
