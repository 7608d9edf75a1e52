"""This package's own comparisons: the lines of a preferences or labels artefact (contracts/schemas/preferences.md)."""

from __future__ import annotations

from ..conversation import BadRow
from ..preference import CONTENT
from .format import Format, Row, carried, known
from .pairs import whole


def read(row: Row) -> list[dict | BadRow]:
    about = known(row, ("source", "licence", "split", *CONTENT[3:]))
    return [whole(row["prompt"], row["responses"], row.get("ranks"), about)]


def write(record: dict) -> list[Row]:
    return [carried(record, ("source", "licence", "split")) | {key: record[key] for key in CONTENT}]


FORMAT = Format("ranked", "comparisons", lambda row: {"prompt", "responses"} <= set(row), read, write)
