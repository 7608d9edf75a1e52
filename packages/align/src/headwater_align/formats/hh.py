"""HH-RLHF (Bai et al., arXiv:2204.05862): {"chosen", "rejected"}, two whole transcripts.

A transcript is "\\n\\nHuman: ...\\n\\nAssistant: ...", turn after turn; the two differ in the last answer.
"""

from __future__ import annotations

import re
from typing import Any

from ..conversation import BadRow, Message
from .format import Format, Row, no_system, split_system
from .pairs import LOSES, last_answer, pair, rows_of_pairs
from .trl import shared_prompt

ROLES = {"Human": "user", "Assistant": "assistant"}
NAMES = {role: name for name, role in ROLES.items()}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def messages(transcript: str) -> list[Message]:
    """A transcript's turns, white space around them removed.

    Raises:
        BadRow: it does not open with one of the two names.
    """
    start, *parts = _TURN.split(transcript.strip())
    if start or not parts:
        raise BadRow("no transcript of Human and Assistant")
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[name], "content": text.strip()} for name, text in turns]


def recognises(row: Row) -> bool:
    """Both sides are transcripts and there is no prompt beside them."""
    sides = (row.get("chosen"), row.get("rejected"))
    return "prompt" not in row and all(isinstance(side, str) and _opens(side) for side in sides)


def _opens(side: Any) -> bool:
    return bool(_TURN.match(side.lstrip()))


def read(row: Row) -> list[dict | BadRow]:
    chosen, rejected = messages(row["chosen"]), messages(row["rejected"])
    prompt = shared_prompt(chosen, rejected)
    return [pair(row, prompt, last_answer(chosen[-1]), last_answer(rejected[-1]))]


def write(record: dict) -> list[Row]:
    system, turns = split_system(record["prompt"])
    no_system(system)
    if any(re.search(r"\n\n(Human|Assistant):", text) for text in [*_contents(turns), *record["responses"]]):
        raise BadRow("a text holds a transcript's own mark")

    def transcript(answer: str) -> str:
        said = [*turns, {"role": "assistant", "content": answer}]
        return "".join(f"\n\n{NAMES[m['role']]}: {m['content']}" for m in said)

    return rows_of_pairs(record, lambda better, worse: {"chosen": transcript(better), "rejected": transcript(worse)})


def _contents(turns: list[Message]) -> list[str]:
    return [turn["content"] for turn in turns]


FORMAT = Format(
    "hh",
    "comparisons",
    recognises,
    read,
    write,
    f"{LOSES}; so is the strength; prompts with a system message are rejects",
)
