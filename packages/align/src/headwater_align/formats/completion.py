"""Prompt and completion: {"prompt", "completion"}, each a text or, as TRL takes it, a list of messages."""

from __future__ import annotations

from ..conversation import BadRow, check
from .format import DEMONSTRATION, Format, Row, carried, demonstration_about, with_system


def turns(row: Row, key: str = "prompt") -> list:
    """The prompt's messages, unchecked; a text is the user's."""
    prompt = row[key]
    return prompt if isinstance(prompt, list) else with_system(row, [{"role": "user", "content": prompt}])


def read(row: Row) -> list[dict | BadRow]:
    messages = turns(row)
    if "completion" in row:
        said = row["completion"]
        messages = [*messages, *(said if isinstance(said, list) else [{"role": "assistant", "content": said}])]
    return [{"messages": check(messages), **demonstration_about(row)}]


def write(record: dict) -> list[Row]:
    *prompt, answer = record["messages"]
    return [{"prompt": prompt, "completion": [answer], **carried(record, DEMONSTRATION)}]


FORMAT = Format(
    "completion",
    "demonstrations",
    lambda row: "prompt" in row and not {"chosen", "rejected", "responses"} & set(row),
    read,
    write,
)
