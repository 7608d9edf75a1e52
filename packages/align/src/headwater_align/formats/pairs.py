"""What the formats of two answers share: a pair of a row as a comparison, a comparison as pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..conversation import BadRow
from ..preference import comparison, pairs_of, strength_of
from .format import COMPARISON, Row, carried, known

LOSES = (
    "a comparison of K answers becomes all its pairs that differ in rank, under one id; that they are one comparison, "
    "ties, and the order in which answers were shown are lost"
)


def pair(row: Row, prompt: Any, chosen: Any, rejected: Any, **given: Any) -> dict:
    """The comparison of a row's two answers, the better first, with what the row says of itself.

    Raises:
        BadRow: as `preference.comparison`.
    """
    about = known(row, (*COMPARISON, "policies")) | given
    return whole(prompt, [chosen, rejected], [1, 2], about)


def whole(prompt: Any, responses: Any, ranks: Any, about: dict) -> dict:
    """A comparison that keeps source, licence and split where `about` has them, beside the comparison's own keys."""
    outside = {key: about[key] for key in ("source", "licence", "split") if isinstance(about.get(key), str)}
    own = {key: value for key, value in about.items() if key not in ("source", "licence", "split")}
    return comparison(prompt, responses, ranks, **own) | outside


def rows_of_pairs(record: dict, row_of: Callable[[str, str], Row], strength: str | None = None) -> list[Row]:
    """A row for each pair of a comparison.

    Args:
        row_of: the format's own keys from (better answer, worse answer).
        strength: key for the pair's strength, where the format has one.
    """
    made = []
    for better, worse in pairs_of(record):
        row = row_of(record["responses"][better], record["responses"][worse]) | carried(record, COMPARISON)
        if record["policies"] is not None:
            row["policies"] = [record["policies"][better], record["policies"][worse]]
        gap = strength_of(record, better, worse)
        if strength and gap is not None:
            row[strength] = gap
        made.append(row)
    return made


def last_answer(value: Any) -> Any:
    """The text of an answer: itself, or the content of the one message it is given as (OpenAI's or ShareGPT's keys)."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        role = value.get("role", value.get("from"))
        if role not in (None, "assistant", "gpt"):
            raise BadRow("an answer is not the assistant's")
        value = value.get("value") if "from" in value else value.get("content")
    if not isinstance(value, str):
        raise BadRow("an answer is not text")
    return value
