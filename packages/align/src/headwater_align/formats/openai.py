"""OpenAI chat: {"messages": [{"role", "content"}]}, as in OpenAI's fine-tuning files and TRL."""

from __future__ import annotations

from ..conversation import BadRow, check
from .format import DEMONSTRATION, Format, Row, carried, demonstration_about


def turns(row: Row) -> list:
    """The row's messages, unchecked.

    Raises:
        BadRow: an answer has `weight` 0 (OpenAI's mark of one not to learn from), which our records cannot say.
    """
    messages = row["messages"]
    if isinstance(messages, list) and any(isinstance(m, dict) and m.get("weight") == 0 for m in messages):
        raise BadRow("a message of weight 0")
    return messages


def read(row: Row) -> list[dict | BadRow]:
    return [{"messages": check(turns(row)), **demonstration_about(row)}]


def write(record: dict) -> list[Row]:
    return [{"messages": record["messages"], **carried(record, DEMONSTRATION)}]


FORMAT = Format("openai", "demonstrations", lambda row: "messages" in row, read, write)
