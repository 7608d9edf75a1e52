"""What a labeller gets to see of completions: which tasks, in which order, under names that tell nothing."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import jsonl
from ..conversation import Message, transcript

KEY = "key.jsonl"
SURE = {"0.25": "a guess", "0.5": "leaning", "0.75": "fairly sure", "1": "certain"}
"""What a labeller may say of their confidence, 0 to 1."""
SHOWN = frozenset("\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")


@dataclass(frozen=True)
class Task:
    """One prompt with completions to rank."""

    task: str
    """Its name: hash, the same for all labellers."""
    names: list[str]
    """One a response; what files call it, wherever it is shown, so that no order has to be undone."""
    prompt: list[Message]
    responses: list[str]
    policies: list[str | None]
    source: str
    licence: str
    split: str
    round: str
    batch: str
    labellers: list[str]
    """Who gets it."""

    @classmethod
    def of(cls, record: dict[str, Any], seed: int, labellers: Sequence[str]) -> Task:
        """The task of a completions record."""
        told = {name: record[name] for name in ("prompt", "responses", "policies", "source", "licence", "split")}
        task = rank_of(seed, "task", record["id"])[:12]
        names = [rank_of(seed, task, place)[:8] for place in range(len(record["responses"]))]
        return cls(task, names, **told, round=record["round"], batch=record["batch"], labellers=list(labellers))

    def shown_to(self, labeller: str, seed: int) -> list[tuple[str, str]]:
        """(name, response) of each, in the order in which this labeller sees them."""
        pairs = zip(self.names, self.responses, strict=True)
        return sorted(pairs, key=lambda pair: rank_of(seed, "position", labeller, self.task, pair[0]))

    def prompt_text(self) -> str:
        """The prompt as one text, each turn under its role where there are several."""
        return transcript([{**message, "content": visible(message["content"])} for message in self.prompt])


def rank_of(seed: int, *parts: object) -> str:
    """Hex digits that seed and parts name: sorted by it, things are in an order that tells nothing of them."""
    return hashlib.sha256("\0".join(map(str, (seed, *parts))).encode()).hexdigest()


def in_order(tasks: Sequence[Task], labeller: str, seed: int) -> list[Task]:
    """The tasks of one labeller, in an order of their own."""
    own = [task for task in tasks if labeller in task.labellers]
    return sorted(own, key=lambda task: rank_of(seed, "order", labeller, task.task))


def assign(ids: Sequence[str], labellers: Sequence[str], overlap: float, several: int, seed: int) -> list[list[str]]:
    """Who gets each task: one labeller, or `several` for a share `overlap` spread evenly; the least busy is next."""
    load = dict.fromkeys(labellers, 0)
    made = []
    for i, name in enumerate(ids):
        shared = int((i + 1) * overlap + 1e-9) > int(i * overlap + 1e-9)
        ranked = sorted(load, key=lambda who: (load[who], rank_of(seed, "who", name, who)))
        chosen = sorted(ranked[: min(several if shared else 1, len(load))])
        for who in chosen:
            load[who] += 1
        made.append(chosen)
    return made


def write_key(path: Path, tasks: Sequence[Task]) -> None:
    """One task a line, in order of name."""
    jsonl.write(path, map(asdict, sorted(tasks, key=lambda t: t.task)))


def read_key(path: Path) -> dict[str, Task]:
    """Name -> task."""
    tasks = [Task(**row) for row in jsonl.read(path)]
    return {task.task: task for task in tasks}


def visible(text: str) -> str:
    """The text with control, invisible and direction-changing characters spelled out: they could hide or reorder it."""
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    text = text.replace("\r\n", "\n")
    return "".join(c if c in SHOWN or unicodedata.category(c) not in hidden else f"[U+{ord(c):04X}]" for c in text)
