"""Alpaca: {"instruction", "input"?, "output"}, with LLaMA-Factory's `system` and `history` of earlier turns."""

from __future__ import annotations

from ..conversation import BadRow, check
from .format import DEMONSTRATION, Format, Row, carried, demonstration_about, split_system, with_system


def turns(row: Row) -> list:
    """The row's messages up to the question, unchecked. `input` follows the instruction after an empty line.

    Raises:
        BadRow: the history is no list of [question, answer].
    """
    asked, given = row["instruction"], row.get("input")
    both = f"{asked}\n\n{given}" if isinstance(given, str) and given.strip() else asked
    earlier = row.get("history") or []
    if not isinstance(earlier, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in earlier):
        raise BadRow("history is no list of question and answer")
    said = [{"role": role, "content": text} for turn in earlier for role, text in _roles(turn)]
    return with_system(row, [*said, {"role": "user", "content": both}])


def _roles(turn: list) -> list[tuple[str, str]]:
    return list(zip(("user", "assistant"), turn, strict=True))


def read(row: Row) -> list[dict | BadRow]:
    messages = turns(row)
    if "output" in row:
        messages = [*messages, {"role": "assistant", "content": row["output"]}]
    return [{"messages": check(messages), **demonstration_about(row)}]


def write(record: dict) -> list[Row]:
    system, said = split_system(record["messages"])
    texts = [message["content"] for message in said]
    row: Row = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    if system is not None:
        row["system"] = system
    if len(texts) > 2:
        row["history"] = [texts[i : i + 2] for i in range(0, len(texts) - 2, 2)]
    return [{**row, **carried(record, DEMONSTRATION)}]


FORMAT = Format(
    "alpaca",
    "demonstrations",
    lambda row: "instruction" in row and not {"chosen", "rejected"} & set(row),
    read,
    write,
    "earlier turns go into LLaMA-Factory's `history`, which other readers of Alpaca ignore",
)
