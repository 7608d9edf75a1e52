"""FLAN and P3: {"inputs", "targets"} as text.

The Flan Collection adds `task_name` (kept as `task`), P3 the texts as `inputs_pretokenized` and `targets_pretokenized`
beside ids under `inputs` and `targets`; the texts are read, the ids never.
"""

from __future__ import annotations

from ..conversation import BadRow, check
from .format import DEMONSTRATION, Format, Row, carried, demonstration_about, no_system, single_turn, with_system


def read(row: Row) -> list[dict | BadRow]:
    end = "_pretokenized" if "inputs_pretokenized" in row else ""
    messages = with_system(row, [{"role": "user", "content": row[f"inputs{end}"]}])
    if f"targets{end}" in row:
        messages.append({"role": "assistant", "content": row[f"targets{end}"]})
    about = demonstration_about(row)
    if "task" not in about and isinstance(row.get("task_name"), str):
        about["task"] = row["task_name"]
    return [{"messages": check(messages), **about}]


def write(record: dict) -> list[Row]:
    system, asked, answer = single_turn(record["messages"])
    no_system(system)
    return [{"inputs": asked, "targets": answer, **carried(record, DEMONSTRATION)}]


FORMAT = Format(
    "flan",
    "demonstrations",
    lambda row: bool({"inputs", "inputs_pretokenized"} & set(row)) and not {"chosen", "rejected"} & set(row),
    read,
    write,
    "conversations of several turns or with a system message are rejects",
)
