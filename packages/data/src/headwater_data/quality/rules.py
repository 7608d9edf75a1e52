"""Rules as expressions over signal columns: which documents a rule removes, and what each rule did."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from .._contracts.errors import UsageError
from ..config import RuleConfig


def removes(rule: RuleConfig) -> pl.Expr:
    """True where the rule removes the document; a missing value never does."""
    column = pl.col(rule.signal)
    if isinstance(rule.threshold, tuple):
        fires = ~column.is_in(list(rule.threshold))
    else:
        compare = {
            "<": column.lt, "<=": column.le, ">": column.gt, ">=": column.ge, "==": column.eq, "!=": column.ne
        }  # fmt: skip
        fires = compare[rule.remove_if](threshold_of(rule))
    if rule.categories:
        fires &= pl.col("category").is_in(list(rule.categories))
    if rule.exempt:
        fires &= ~pl.col("source").is_in(list(rule.exempt))
    return fires.fill_null(False)


def threshold_of(rule: RuleConfig) -> pl.Expr:
    """The rule's threshold, by the document's language where the rule has a table for it."""
    if not rule.by_language:
        return pl.lit(rule.threshold)
    return pl.col("language").replace_strict(rule.by_language, default=rule.threshold, return_dtype=pl.Float64)


def check_signals(rules: Mapping[str, RuleConfig], columns: Mapping[str, pl.DataType]) -> None:
    """Refuse a rule whose signal is missing or of another type than its threshold.

    Raises:
        UsageError: naming the rule and the signals there are.
    """
    for name, rule in rules.items():
        kind = columns.get(rule.signal)
        if kind is None:
            signals = [c for c, t in columns.items() if t.is_numeric() or c == "language"]
            raise UsageError(
                f"filter.rules.{name}.signal: the documents have no column {rule.signal}; "
                f"{'they have ' + ', '.join(signals) if signals else 'run headwater-data signals first'}"
            )
        if rule.by_language and "language" not in columns:
            raise UsageError(
                f"filter.rules.{name}.by_language: the documents have no column language; run signals first"
            )
        if isinstance(rule.threshold, tuple) == kind.is_numeric():
            raise UsageError(f"filter.rules.{name}: {rule.signal} is {kind}, which `{rule.remove_if}` does not fit")


def verdicts(documents: pl.DataFrame, rules: Mapping[str, RuleConfig]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the rules say of each document.

    Returns:
        rule (the first enabled rule that fires, null: kept), value and threshold of that rule (f64, null for words),
        one row a document; and one boolean column a rule, enabled or not.
    """
    fired = documents.select(**{name: removes(rule) for name, rule in rules.items()})
    enabled = [name for name, rule in rules.items() if rule.enabled]
    first = pl.coalesce([pl.when(pl.col(n)).then(pl.lit(n)) for n in enabled] or [pl.lit(None, pl.String)])
    rule = documents.select("source").hstack(fired).with_columns(rule=first)["rule"]  # a row a document
    value, threshold = pl.lit(None, pl.Float64), pl.lit(None, pl.Float64)
    for name in enabled:
        config = rules[name]
        if not isinstance(config.threshold, tuple):
            here = pl.col("rule") == name
            value = pl.when(here).then(pl.col(config.signal).cast(pl.Float64)).otherwise(value)
            threshold = pl.when(here).then(threshold_of(config)).otherwise(threshold)
    judged = documents.with_columns(rule=rule).select("rule", value=value, threshold=threshold)
    return judged, fired
