"""The stages' configs: every parameter with its unit, contradictions refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ._contracts.config import Config

Role = Literal["corpus", "items", "instructions", "preferences", "weights"]
Category = Literal["academic", "internet", "prose", "dialogue", "misc"]
Reader = Literal["html", "text", "markdown", "code", "dialogue", "dictd", "r-text", "jsonl", "lines", "raw"]

STDLIB_TOKENS = ("stdlib:", "stdlib:docstrings", "stdlib:topics", "stdlib:pydoc")


class SourceConfig(Config):
    """One source: what it is, where it comes from, which of its files count."""

    role: Role = Field("corpus", description="what the source is for; only `corpus` is extracted")
    category: Category = Field(description="one of the Pile's five: academic, internet, prose, dialogue, misc")
    licence: str = Field(description="licence as the package states it (SPDX identifier where there is one)")
    language: str = Field("en", description="ISO 639-1 code, or `mul` for several")
    kind: Literal["pypi", "deb", "local", "url"] = Field(description="how it is fetched")
    package: str | None = Field(None, description="package name (pypi, deb)")
    version: str | None = Field(None, description="version; needed for pypi; for deb none takes what is served")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="of the fetched file; needed for pypi")
    dist: Literal["wheel", "sdist"] = Field("wheel", description="which file of a Python package")
    path: str | None = Field(None, description="local: a file, folder, glob, or stdlib: token")
    url: str | None = Field(None, description="url: any address fsspec opens (file, http, s3, hf)")
    base_url: str = Field("", description="public address of the files below `root`, if they have one; ends in /")
    root: str = Field("", description="folder inside the package below which `include` is matched")
    include: tuple[str, ...] = Field(("*",), description="globs of paths below `root`; * also matches /")
    exclude: tuple[str, ...] = Field((), description="globs of paths to leave out")
    reader: Reader = Field(description="how extract reads it")
    text_field: str = Field("text", description="jsonl: the field that holds the text")
    limit_bytes: int = Field(0, ge=0, description="stop before this many bytes of members; 0: no limit")

    @model_validator(mode="after")
    def _locator(self) -> SourceConfig:
        needed = {
            "pypi": ("package", "version", "sha256"),
            "deb": ("package",),
            "local": ("path",),
            "url": ("url",),
        }[self.kind]
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        if self.role == "corpus" and self.reader == "raw":
            raise ValueError("role corpus needs a reader of text, not raw")
        token = self.path or ""
        if token.startswith("stdlib:") and token not in STDLIB_TOKENS:
            raise ValueError(f"path {token}: the standard library's parts are {', '.join(STDLIB_TOKENS)}")
        return self


def _standard_library_sources() -> dict[str, SourceConfig]:
    """Offline default: what every Python carries."""
    common = {"licence": "PSF-2.0", "kind": "local"}
    return {
        "stdlib-code": SourceConfig(category="misc", path="stdlib:", reader="code", limit_bytes=6_000_000, **common),
        "stdlib-pages": SourceConfig(category="internet", path="stdlib:pydoc", reader="html", limit_bytes=2_000_000, **common),  # noqa: E501
        "stdlib-topics": SourceConfig(category="academic", path="stdlib:topics", reader="text", **common),
        "docstrings": SourceConfig(role="items", category="misc", path="stdlib:docstrings", reader="raw", **common),
    }  # fmt: skip


class CollectConfig(Config):
    """collect"""

    sources: dict[str, SourceConfig] = Field(
        default_factory=_standard_library_sources, description="name -> source; the default needs no network"
    )
    take: tuple[str, ...] = Field((), description="names of the sources to collect; none: all of them")
    workers: int = Field(2, ge=1, le=16, description="sources fetched and packed at a time (threads)")

    @model_validator(mode="before")
    @classmethod
    def _taken(cls, values: dict) -> dict:
        """Sources that are not taken are no part of the config: describing one more collects nothing again."""
        sources = values.get("sources")
        if not values.get("take") or not isinstance(sources, dict):
            return values
        missing = [name for name in values["take"] if name not in sources]
        if missing:
            raise ValueError(f"take: {missing[0]} is none of the sources: {', '.join(sorted(sources))}")
        return {**values, "sources": {name: sources[name] for name in values["take"]}}

    @model_validator(mode="after")
    def _names(self) -> CollectConfig:
        bad = [n for n in self.sources if not n.replace("-", "").replace("_", "").replace(".", "").isalnum()]
        if bad:
            raise ValueError(f"source name {bad[0]!r}: letters, digits, - _ . only: it names a folder")
        if not self.sources:
            raise ValueError("sources: at least one is needed")
        return self


class ExtractConfig(Config):
    """extract"""

    workers: int = Field(2, ge=1, description="processes; the result does not depend on it")
    records_per_shard: int = Field(1500, ge=1, description="web pages, files or groups of entries a shard")
    max_characters: int = Field(
        16_000, ge=500, description="longer works are split at paragraph bounds into documents of at most this length"
    )
    entry_group_characters: int = Field(4_000, ge=1, description="dictionaries: consecutive entries a document")
    min_characters: int = Field(1, ge=1, description="shorter extracted texts go to rejects as empty")
    max_page_bytes: int = Field(10_000_000, ge=1, description="larger web pages go to rejects unread")


class SignalsConfig(Config):
    """signals"""

    workers: int = Field(2, ge=1, description="processes; the result does not depend on it")
    language_characters: int = Field(
        1_000, ge=50, description="language is told from so many first characters: 3.9 times cheaper than whole text, "
        "same label for 98.65% of documents (measured)"
    )  # fmt: skip


Comparison = Literal["<", "<=", ">", ">=", "==", "!=", "not in"]


class RuleConfig(Config):
    """A document is removed if `signal` `remove_if` `threshold`."""

    signal: str = Field(description="column of the documents")
    remove_if: Comparison = Field(description="comparison; `not in` takes a list of words as threshold")
    threshold: float | tuple[str, ...] = Field(description="in the signal's unit")
    source: str = Field("", description="paper that published the rule and its threshold")
    categories: tuple[Category, ...] = Field((), description="categories the rule is for; none: all")
    exempt: tuple[str, ...] = Field((), description="sources the rule leaves alone")
    enabled: bool = Field(True, description="false: the rule is counted in the metrics, but removes nothing")

    @model_validator(mode="after")
    def _comparable(self) -> RuleConfig:
        if (self.remove_if == "not in") != isinstance(self.threshold, tuple):
            raise ValueError("threshold: a list goes with `not in`, a number with every other comparison")
        return self


def published_rules() -> dict[str, RuleConfig]:
    """The rules of published_rules.yaml, the default."""
    from pathlib import Path

    import yaml

    table = yaml.safe_load((Path(__file__).parent / "published_rules.yaml").read_text())
    return {name: RuleConfig.model_validate(rule) for name, rule in table.items()}


class FilterConfig(Config):
    """filter"""

    rules: dict[str, RuleConfig] = Field(
        default_factory=published_rules, description="rule name -> rule, in the order in which they are tried"
    )


class DedupConfig(Config):
    """dedup"""

    workers: int = Field(2, ge=1, description="processes; the result does not depend on it")
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


class DecontaminateConfig(Config):
    """decontaminate"""

    workers: int = Field(2, ge=1, description="processes; the result does not depend on it")
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


class MixConfig(Config):
    """mix"""

    weights: dict[str, float] = Field(
        default_factory=dict,
        description="source or category -> factor on its natural share of bytes; a source's goes before its category's",
    )
    total_bytes: int = Field(0, ge=0, description="bytes of training text, repetitions included; 0: what there is")
    max_epochs: float = Field(4.0, gt=0, description="most often that a document may be repeated (Muennighoff 2023: 4)")
    heldout_fraction: float = Field(0.015, ge=0, lt=0.5, description="share of documents held out")
    heldout_max_bytes: int = Field(1_000_000, ge=0, description="cap on the held-out text; 0: none")
    heldout_exclude: tuple[str, ...] = Field((), description="sources or categories that are never held out")
    documents_per_shard: int = Field(10_000, ge=1, description="documents a Parquet shard")
    seed: int = Field(1, description="of the split and the shuffle")

    @model_validator(mode="after")
    def _weights(self) -> MixConfig:
        bad = [name for name, w in self.weights.items() if not 0 <= w < float("inf")]
        if bad:
            raise ValueError(f"weights.{bad[0]}: a finite factor of 0 or more is needed")
        return self
