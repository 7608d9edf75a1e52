"""The page that a labeller opens from a disk, without a network, and the JSON that it saves.

{"format": "headwater-labels", "version": 1, "sheet", "labeller", "saved",
 "rankings": [{"task", "ranks": {name: rank}, "confidence", "comment", "skipped", "at"}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .rankings import Ranking, Reject
from .tasks import SURE, Task, visible

FORMAT, VERSION = "headwater-labels", 1
SKIP = ("no answer is usable", "the prompt makes no sense", "I do not know enough to judge", "harmful or private")
TEMPLATE = Path(__file__).with_name("page.html")


def write(tasks: Sequence[Task], labeller: str, seed: int, sheet: str) -> str:
    """One HTML file with the tasks in it.

    Args:
        tasks: in the order in which the labeller gets them.
        sheet: name of the sheet; what a browser remembers belongs to it.
    """
    data = {
        "format": FORMAT,
        "version": VERSION,
        "sheet": sheet,
        "labeller": labeller,
        "confidences": [[float(value), told] for value, told in SURE.items()],
        "skips": SKIP,
        "tasks": [
            {
                "task": task.task,
                "prompt": [[message["role"], visible(message["content"])] for message in task.prompt],
                "responses": [[name, visible(text)] for name, text in task.shown_to(labeller, seed)],
            }
            for task in tasks
        ],
    }
    return TEMPLATE.read_text("utf-8").replace("{{ data }}", in_script(data))


def in_script(data: object) -> str:
    """JSON that can stand in a script element whatever its strings say: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def read(saved: dict[str, Any], file: str) -> Iterator[Ranking | Reject]:
    """The rankings of a saved JSON; those not done yet are none."""
    rankings = saved.get("rankings")
    if saved.get("version") != VERSION or not isinstance(rankings, list):
        yield Reject(file, 1, "", "", f"a page of another version than {VERSION}; save it from the page of this sheet")
        return
    labeller = saved.get("labeller")
    for row, entry in enumerate(rankings, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("ranks"), dict):
            yield Reject(file, row, "", str(labeller or ""), "no ranking")
            continue
        told = {name: entry.get(name) or "" for name in ("task", "comment", "skipped", "at")}
        if not all(isinstance(value, str) for value in told.values()) or not isinstance(labeller, str):
            yield Reject(file, row, str(told["task"]), str(labeller or ""), "a field of another type")
            continue
        yield Ranking(
            told["task"], labeller, entry["ranks"], file, row, entry.get("confidence"), told["comment"],
            told["skipped"], told["at"],
        )  # fmt: skip
