"""What a public format is to this package: how its rows are recognised, read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..conversation import BadRow, Message, is_unicode
from ..splitting import side_of

Holds = Literal["demonstrations", "comparisons"]
Row = dict[str, Any]

DEMONSTRATION = ("source", "licence", "split", "task", "cluster")
COMPARISON = ("source", "licence", "split", "labeller", "round", "batch", "confidence")


@dataclass(frozen=True)
class Format:
    """One public format of demonstrations or of comparisons."""

    name: str
    holds: Holds
    recognises: Callable[[Row], bool]
    """Whether a row is in this format, by its keys."""
    read: Callable[[Row], list[dict | BadRow]]
    """The demonstrations ({"messages", ...}) or comparisons (preference.CONTENT, ...) of a row.

    It raises BadRow for a row that cannot be used. Where a row holds several (three people's rankings of one task),
    one that cannot be used stands in the list as its BadRow, and costs the others nothing.
    """
    write: Callable[[dict], list[Row]] | None = None
    """The rows of a record; raises BadRow for a record that the format cannot hold."""
    loses: str = ""
    """What of a record has no place in a row, in words for the user."""


def known(row: Row, keys: tuple[str, ...]) -> dict:
    """What a row says of itself beside its content, under the keys of our records; `license` is read as `licence`.

    Raises:
        BadRow: a split that is neither training nor held out.
    """
    found = {key: row[key] for key in keys if row.get(key) is not None and key != "split"}
    if "licence" in keys and "licence" not in found and row.get("license") is not None:
        found["licence"] = row["license"]
    if "split" in keys and (side := side_of(row.get("split"))):
        found["split"] = side
    return found


def demonstration_about(row: Row) -> dict:
    """`known` of a demonstration: the names that are text, and the side of the split."""
    found = known(row, DEMONSTRATION)
    return {key: value for key, value in found.items() if isinstance(value, str) and is_unicode(value)}


def carried(record: dict, keys: tuple[str, ...]) -> Row:
    """What a writer adds to a row beside the format's own keys: readers of the format do not look at it, ours do."""
    found = {"id": record.get("id"), **{key: record.get(key) for key in keys}}
    return {key: value for key, value in found.items() if value is not None}


def single_turn(messages: list[Message]) -> tuple[str | None, str, str]:
    """(system message or None, question, answer) of a conversation with one turn each.

    Raises:
        BadRow: it has more.
    """
    system, turns = split_system(messages)
    if len(turns) != 2:
        raise BadRow("more turns than the format holds")
    return system, turns[0]["content"], turns[1]["content"]


def split_system(messages: list[Message]) -> tuple[str | None, list[Message]]:
    """The text of the system message, if any, and the other messages."""
    if messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


def with_system(row: Row, messages: list) -> list:
    """Messages with the row's `system` text before them, if it has one."""
    return [{"role": "system", "content": row["system"]}, *messages] if row.get("system") else messages


def no_system(system: str | None) -> None:
    """Raises BadRow for a record whose system message the format has no place for."""
    if system is not None:
        raise BadRow("the format has no system message")
