"""The numbers of the card, from the artefacts' metrics and the corpus itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from ..config.clean import PRIVATE
from ..documents import draws

STEPS = {
    "extracted": "extract", "edited": "clean", "filtered": "filter", "deduped": "dedup", "clean": "decontaminate",
    "corpus": "mix",
}  # fmt: skip
"""Input -> the step that made it, in order."""

TOKEN_CHARACTERS = 4_000  # of each sampled document: its rate is known by then


def tokens_per_byte(extracted: Path, tokenizer: Path | None, documents: int, seed: int) -> dict[str, float] | None:
    """source -> tokens a byte of text, counted on a sample; `*` over all. None without a tokenizer."""
    if tokenizer is None:
        return None
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    table = pl.scan_parquet(extracted / "part-*.parquet").select("id", "source").collect(engine="streaming")
    table = table.with_columns(key=draws(f"tokens {seed}", table["id"]))
    chosen = table.sort("key").group_by("source", maintain_order=True).head(documents)
    texts = (
        pl.scan_parquet(extracted / "part-*.parquet")
        .select("id", "source", "text")
        .join(chosen.lazy().select("id"), on="id", how="semi")
        .collect(engine="streaming")
    )
    counts: dict[str, list[int]] = {}
    for source, text in texts.sort("id").select("source", "text").iter_rows():
        text = text[:TOKEN_CHARACTERS]
        tokens, size = len(encoder.encode(text, add_special_tokens=False).ids), len(text.encode())
        for name in (source, "*"):
            entry = counts.setdefault(name, [0, 0])
            entry[0] += tokens
            entry[1] += size
    return {name: tokens / max(size, 1) for name, (tokens, size) in counts.items()}


def funnel(metrics: dict[str, dict], rates: dict[str, float] | None) -> list[dict]:
    """One row a step: documents, bytes and (estimated) tokens in and out, by rule and by source."""
    rows = []
    for name, step in STEPS.items():
        if name not in metrics:
            continue
        m = metrics[name]
        by_source = {
            source: {**{k: int(e[k]) for k in ("documents_in", "documents_out", "bytes_in", "bytes_out")},
                     **_tokens(e, rates, source)}
            for source, e in sorted(m["by_source"].items())
        }  # fmt: skip
        row = {k: int(m[k]) for k in ("documents_in", "documents_out", "bytes_in", "bytes_out")}
        if rates:
            row |= {k: sum(e[k] for e in by_source.values()) for k in ("tokens_in", "tokens_out")}
        rows.append({"step": step, **row, "by_rule": m.get("by_rule", {}), "by_source": by_source})
    return rows


def _tokens(entry: dict, rates: dict[str, float] | None, source: str) -> dict[str, int]:
    if not rates:
        return {}
    rate = rates.get(source, rates["*"])
    return {f"tokens_{side}": round(entry[f"bytes_{side}"] * rate) for side in ("in", "out")}


def corpus_facts(corpus: Path) -> dict:
    """Shares of bytes by licence, language, category and source, and the lengths, of the training text."""
    train = pl.scan_parquet(corpus / "train" / "part-*.parquet")
    sized = train.select(
        "licence", "lang", "category", "source", bytes=pl.col("text").str.len_bytes().cast(pl.Int64)
    ).collect(engine="streaming")
    total = max(int(sized["bytes"].sum()), 1)
    shares = {}
    for column in ("licence", "lang", "category", "source"):
        sums = (
            sized.group_by(column).agg(pl.col("bytes").sum(), pl.len()).sort("bytes", column, descending=[True, False])
        )
        shares[column] = [
            {"name": name or "unknown", "documents": n, "bytes": int(b), "share": round(int(b) / total, 6)}
            for name, b, n in sums.iter_rows()
        ]
    sizes = sized["bytes"].to_numpy()
    edges = 2 ** np.arange(5, 25)
    counts = np.histogram(np.clip(sizes, 2**5, 2**24 - 1), bins=edges)[0] if len(sizes) else np.zeros(19, int)
    quantiles = {f"p{q}": int(np.quantile(sizes, q / 100)) for q in (5, 25, 50, 75, 95)} if len(sizes) else {}
    return {
        "documents": len(sized), "bytes": int(sizes.sum()), **shares, "length_quantiles_bytes": quantiles,
        "lengths": [{"from": int(e), "documents": int(c)} for e, c in zip(edges, counts, strict=False)],
    }  # fmt: skip


def copies(deduped: Path) -> dict[str, int]:
    """How large the clusters of duplicates were: members -> clusters."""
    kept = pl.scan_parquet(deduped / "part-*.parquet").filter(pl.col("copies") > 0)
    sizes = kept.group_by(members=pl.col("copies") + 1).len().sort("members").collect(engine="streaming")
    return {str(members): n for members, n in sizes.iter_rows()}


def private(metrics: dict) -> dict[str, dict[str, int]]:
    """What clean masked: kind -> places and documents."""
    edits, documents = metrics.get("edits", {}), metrics.get("documents_edited", {})
    return {kind: {"found": edits[kind], "documents": documents.get(kind, 0)} for kind in PRIVATE if kind in edits}


def as_json(value: object) -> str:
    """JSON for people: indented, keys in order."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
