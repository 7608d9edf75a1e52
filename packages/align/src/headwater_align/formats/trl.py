"""TRL: {"prompt", "chosen", "rejected", "margin"?}, and its relatives.

The prompt may be a text or messages; ShareGPT's and Alpaca's keys for it (as LLaMA-Factory has them) are read too.
Without a prompt, chosen and rejected are whole conversations that differ in their last message (TRL's implicit prompt,
and the Hugging Face H4 sets, whose `prompt` repeats the first question).
"""

from __future__ import annotations

from typing import Any

from ..conversation import BadRow
from . import alpaca, completion, openai, sharegpt
from .format import Format, Row
from .pairs import LOSES, last_answer, pair, rows_of_pairs


def read(row: Row) -> list[dict | BadRow]:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, list) and isinstance(rejected, list) and min(len(chosen), len(rejected)) > 1:
        prompt = shared_prompt(chosen, rejected)
        chosen, rejected = chosen[-1], rejected[-1]
    else:
        prompt = _prompt(row)
    return [pair(row, prompt, last_answer(chosen), last_answer(rejected), strength=row.get("margin"))]


def shared_prompt(chosen: list, rejected: list) -> list:
    """What two whole conversations have in common, if that is all but their last message.

    Raises:
        BadRow: they part earlier, so what is compared is not two answers to one prompt.
    """
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("chosen and rejected differ before the last answer")
    return chosen[:-1]


def _prompt(row: Row) -> Any:
    if "messages" in row:
        return openai.turns(row)
    if "conversations" in row:
        return sharegpt.turns(row)
    if "instruction" in row:
        return alpaca.turns(row)
    for key in ("prompt", "inputs"):
        if key in row:
            return completion.turns(row, key)
    raise BadRow("no prompt")


def write(record: dict) -> list[Row]:
    def row(better: str, worse: str) -> Row:
        return {"prompt": record["prompt"], "chosen": _message(better), "rejected": _message(worse)}

    return rows_of_pairs(record, row, strength="margin")


def _message(text: str) -> list:
    return [{"role": "assistant", "content": text}]


FORMAT = Format("trl", "comparisons", lambda row: bool({"chosen", "rejected"} & set(row)), read, write, LOSES)
