"""A small n-gram language model: interpolated Kneser-Ney, estimated by counting in polars, written as ARPA for kenlm.

Chen and Goodman 1998, section 2.7 and 4.1.6: one discount an order, n1 / (n1 + 2 n2); lower orders count distinct left
contexts. kenlm reads the file and scores; its own estimator, lmplz, is not in its Python package.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import polars as pl

from .._contracts.manifest import write_atomic

_WORD = re.compile(r"\w+|[^\w\s]")
_DIGIT = re.compile(r"\d")
START, END, UNKNOWN = "<s>", "</s>", "<unk>"


def sentence(text: str) -> str:
    """A text as the model sees it: lower case, digits as 0 (CCNet), words and marks apart."""
    return " ".join(_WORD.findall(_DIGIT.sub("0", text.lower())))


def estimate(texts: list[str], order: int, min_count: int) -> list[pl.DataFrame]:
    """Probabilities and back-off weights of each order.

    Args:
        texts: one is one sentence, from start to end mark.
        order: words of the longest n-grams.
        min_count: rarer words are unknown.

    Returns:
        For n = 1 .. order a table of w0 .. w(n-1), `p` (log10 probability) and `backoff` (log10, 0 if never used).
    """
    words = pl.Series([w for t in texts for w in (START, *sentence(t).split(), END)], dtype=pl.String)
    counts = words.value_counts(name="n")
    known = counts.filter(pl.col("n") >= min_count)[words.name].to_list()
    words = words.to_frame("w").select(
        pl.when(pl.col("w").is_in([*known, START, END])).then("w").otherwise(pl.lit(UNKNOWN))
    )["w"]
    grams = [_count(words, n + 1) for n in range(order)]
    levels: list[pl.DataFrame] = []
    lower: pl.DataFrame | None = None
    for n in range(1, order + 1):
        names = [f"w{i}" for i in range(n)]
        table = grams[n - 1]
        if n < order:  # continuation counts; what starts a sentence has no left context and keeps its own
            above = grams[n].group_by([f"w{i + 1}" for i in range(n)]).agg(pl.len().alias("left"))
            above = above.rename({f"w{i + 1}": f"w{i}" for i in range(n)})
            table = table.join(above, on=names, how="left").with_columns(
                count=pl.when(pl.col("w0") == START).then("count").otherwise(pl.col("left").fill_null(0))
            )
        table = table.filter(pl.col("count") > 0).drop("left", strict=False)
        if n == 1:
            table = table.filter(pl.col("w0") != START)
        lower = _level(table, names, lower)
        levels.append(lower)
    return [_with_backoff(level, levels[n + 1] if n + 1 < order else None, n + 1) for n, level in enumerate(levels)]


def _count(words: pl.Series, n: int) -> pl.DataFrame:
    """n-grams that cross no end mark, with counts."""
    table = pl.DataFrame({f"w{i}": words.shift(-i) for i in range(n)}).head(len(words) - n + 1)
    for i in range(n - 1):
        table = table.filter(pl.col(f"w{i}") != END)
    return table.group_by(table.columns).agg(pl.len().alias("count").cast(pl.Int64))


def _level(table: pl.DataFrame, names: list[str], lower: pl.DataFrame | None) -> pl.DataFrame:
    """Interpolated probability `q` of each n-gram, and `free`, the mass of its context that goes to the lower order."""
    context = names[:-1]
    ones, twos = (int((table["count"] == k).sum()) for k in (1, 2))
    discount = ones / (ones + 2 * twos) if ones and twos else 0.5
    if lower is None:  # the lower order of single words is uniform over the words that can follow
        total, kinds = int(table["count"].sum()), len(table)
        free = discount * kinds / total
        missing = UNKNOWN not in table["w0"]
        if missing:
            table = pl.concat([table, pl.DataFrame({"w0": [UNKNOWN], "count": [0]}, schema=table.schema)])
        uniform = 1 / len(table)
        q = (pl.col("count") - discount).clip(lower_bound=0) / total + free * uniform
        return table.with_columns(q=q, free=pl.lit(free))
    sums = table.group_by(context).agg(total=pl.col("count").sum(), kinds=pl.len())
    rest = lower.select(*[pl.col(f"w{i}").alias(f"w{i + 1}") for i in range(len(context))], rest="q")
    return (
        table.join(sums, on=context)
        .join(rest, on=names[1:], how="left")
        .with_columns(free=discount * pl.col("kinds") / pl.col("total"))
        .with_columns(
            q=(pl.col("count") - discount).clip(lower_bound=0) / pl.col("total")
            + pl.col("free") * pl.col("rest").fill_null(0.0)
        )
    )


def _with_backoff(level: pl.DataFrame, above: pl.DataFrame | None, n: int) -> pl.DataFrame:
    names = [f"w{i}" for i in range(n)]
    table = level.select(*names, p=pl.col("q").log10())
    if n == 1:
        table = pl.concat([pl.DataFrame({"w0": [START], "p": [-99.0]}), table])
    if above is None:
        return table.with_columns(backoff=pl.lit(0.0)).sort(names)
    weights = above.group_by(names).agg(backoff=pl.col("free").first().log10())
    return table.join(weights, on=names, how="left").with_columns(pl.col("backoff").fill_null(0.0)).sort(names)


def write_arpa(path: Path, tables: list[pl.DataFrame]) -> None:
    """Write the tables as an ARPA file."""
    lines = ["\\data\\", *(f"ngram {n}={len(table)}" for n, table in enumerate(tables, 1)), ""]
    for n, table in enumerate(tables, 1):
        lines.append(f"\\{n}-grams:")
        last = n == len(tables)
        for *words, p, backoff in table.iter_rows():
            weight = "" if last or backoff == 0.0 else f"\t{backoff:.6f}"
            lines.append(f"{max(p, -99.0) if math.isfinite(p) else -99.0:.6f}\t{' '.join(words)}{weight}")
        lines.append("")
    write_atomic(path, "\n".join([*lines, "\\end\\", ""]))
