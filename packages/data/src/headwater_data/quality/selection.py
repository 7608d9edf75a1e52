"""Which of the documents that pass the rules stay by their score: the best share, or a draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from .._contracts.errors import UsageError
from ..config import FilterConfig, Selection
from ..documents import Block, draws
from .rules import verdicts


def check_selection(select: Selection, columns: Mapping[str, pl.DataType]) -> None:
    """Refuse a selection by a column that is not there.

    Raises:
        UsageError: naming the stages that make it.
    """
    if select.keep != "all" and (select.column not in columns or not columns[select.column].is_numeric()):
        raise UsageError(
            f"filter.select.column: the documents have no score {select.column}; run headwater-data classifier and "
            "give it to signals, or set signals.quality_model"
        )


def top_score(blocks: list[Block], config: FilterConfig) -> float:
    """The score from which on `fraction` of the documents that pass the rules lie, over the whole corpus."""
    scores = [np.zeros(0)]
    for block in blocks:
        documents = block.read()
        judged, _ = verdicts(documents, config.rules)
        passed = documents.filter(
            judged["rule"].is_null() & documents["category"].is_in(list(config.select.categories))
        )
        scores.append(passed[config.select.column].drop_nulls().to_numpy())
    ranked = np.sort(np.concatenate(scores))[::-1]
    return float(ranked[max(round(len(ranked) * config.select.fraction), 1) - 1]) if len(ranked) else 0.0


def selected(documents: pl.DataFrame, judged: pl.DataFrame, select: Selection, bar: float | None) -> pl.DataFrame:
    """The verdicts with what the selection adds: rule `select_top` or `select_pareto`, score, and what it missed.

    The draw of pareto is numpy's: (1 - u) ** (-1/alpha) - 1, with u from a hash of seed and id, so that it depends on
    no order.
    """
    if select.keep == "all":
        return judged
    score = documents[select.column].cast(pl.Float64)
    if select.keep == "top":
        threshold = pl.Series([bar] * len(documents), dtype=pl.Float64)
        falls = score < threshold
    else:
        u = draws(f"pareto {select.seed}", documents["id"]).to_numpy() / 2**64
        threshold = pl.Series(1 - ((1 - u) ** (-1 / select.alpha) - 1))
        falls = score <= threshold
    falls = falls.fill_null(False) & judged["rule"].is_null() & documents["category"].is_in(list(select.categories))
    return judged.with_columns(
        rule=pl.when(falls).then(pl.lit(f"select_{select.keep}")).otherwise("rule"),
        value=pl.when(falls).then(score).otherwise("value"),
        threshold=pl.when(falls).then(threshold).otherwise("threshold"),
    )
