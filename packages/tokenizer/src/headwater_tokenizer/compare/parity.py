"""What the same content costs in other languages: tokens of parallel documents over those of English.

Petrov et al. 2023, Language Model Tokenizers Introduce Unfairness Between Languages, arXiv 2305.15425, call the ratio
the premium; here it is one of sums over documents, so that long ones weigh more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import polars as pl
import pyarrow as pa

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.compare.config import ParityConfig
from headwater_tokenizer.compare.subject import Subject

Parallel = dict[str, dict[str, list[str]]]
"""Language -> key -> texts."""


def read_parallel(documents: Path, config: ParityConfig) -> Parallel:
    """The parallel documents of one source, keys in order; held in memory.

    Raises:
        UserError: no document of that source, none that the pattern fits, or none in the base language.
    """
    found: Parallel = defaultdict(lambda: defaultdict(list))
    names: set[str] = set()
    pattern = re.compile(config.pattern)
    for shard in sorted(documents.glob("part-*.parquet")):
        rows = pl.scan_parquet(shard).select("source", "text", config.field)
        names |= set(rows.select(pl.col("source").unique()).collect()["source"])
        for place, text in rows.filter(pl.col("source") == config.source).select(config.field, "text").collect().rows():
            match = pattern.search(place or "")
            if match and text:
                found[match["language"]][match["key"]].append(text)
    if config.source not in names:
        raise UserError(f"{documents}: no source {config.source}; it has {', '.join(sorted(names)) or 'none'}")
    if config.base not in found:
        raise UserError(f"{documents}: pattern {config.pattern} finds no {config.field} of {config.source} in language "
                        f"{config.base}; it finds {', '.join(sorted(found)) or 'none'}")  # fmt: skip
    return {language: {key: found[language][key] for key in sorted(found[language])} for language in sorted(found)}


def premiums(subject: Subject, parallel: Parallel, base: str) -> dict[str, dict]:
    """Language -> documents: keys that it shares with the base language; tokens: its tokens of these; premium: its
    tokens over the base language's of these, 1 for that itself. A language that shares none is left out."""
    tokens = {language: _tokens(subject, texts) for language, texts in parallel.items()}
    found = {}
    for language, counts in tokens.items():
        shared = sorted(counts.keys() & tokens[base].keys())
        own, of_base = (sum(c[key] for key in shared) for c in (counts, tokens[base]))
        if of_base:
            found[language] = {"documents": len(shared), "tokens": own, "premium": own / of_base}
    return found


def _tokens(subject: Subject, texts: dict[str, list[str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, parts in texts.items():
        ids, _ = subject.encoder.encode_column(pa.array(parts, pa.large_string()))
        counts[key] = len(ids)
    return counts
