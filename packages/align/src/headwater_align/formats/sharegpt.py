"""ShareGPT: {"conversations": [{"from": "human" | "gpt" | "system", "value"}], "system"?}."""

from __future__ import annotations

from typing import Any

from ..conversation import BadRow, Message, check
from .format import DEMONSTRATION, Format, Row, carried, demonstration_about, split_system, with_system

ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
NAMES = {"user": "human", "assistant": "gpt"}


def turns(row: Row) -> list[Message]:
    """The row's messages, unchecked but for their roles.

    Raises:
        BadRow: no list of turns, or a role that is not in ROLES.
    """
    if not isinstance(row["conversations"], list):
        raise BadRow("conversations is not a list")
    return with_system(row, [message(turn) for turn in row["conversations"]])


def message(turn: Any) -> Message:
    """One turn as a message."""
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str) or turn["from"] not in ROLES:
        raise BadRow("unknown role")
    return {"role": ROLES[turn["from"]], "content": turn.get("value", "")}


def read(row: Row) -> list[dict | BadRow]:
    return [{"messages": check(turns(row)), **demonstration_about(row)}]


def write(record: dict) -> list[Row]:
    system, said = split_system(record["messages"])
    row: Row = {"conversations": [{"from": NAMES[m["role"]], "value": m["content"]} for m in said]}
    if system is not None:
        row["system"] = system
    return [{**row, **carried(record, DEMONSTRATION)}]


FORMAT = Format(
    "sharegpt",
    "demonstrations",
    lambda row: "conversations" in row and not {"chosen", "rejected"} & set(row),
    read,
    write,
)
