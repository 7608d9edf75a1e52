"""The flight log: every change of course of a run, in order, and why; what was done by hand can be flown again.

The authors of OPT-175B kept theirs by hand (arXiv:2205.01068, section 2.5 and the logbook). Here each event is one line
of `flight.jsonl` in the run's work folder, published with the checkpoint:

    {"details": {"set": {"optimizer.lr": 0.001}}, "rollbacks": 0, "step": 120, "what": "change", "why": "loss is flat"}

An event has a place in the run: after `step` steps, and after how many rollbacks, since a run that was rolled back
passes a step twice. A run that was killed passes it twice as well, and then finds what happened there already written:
changes are made again, decisions come out again, nothing is written twice. No times here, so that a run that
was killed leaves the same log as one that was not; times, and restarts, are in `journal.jsonl` beside it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._contracts import manifest as artefacts
from ._contracts.errors import UserError

NAME = "flight.jsonl"
WHAT = ("change", "optimizer", "skip", "rollback", "lower_lr", "stop")


@dataclass(frozen=True)
class Event:
    """One change of course."""

    step: int
    """Steps done when it was made."""
    what: str
    """One of `WHAT`: change is made by a person or the config, optimizer says what of its state a change kept, the
    others come from the policy on loss spikes."""
    why: str
    rollbacks: int = 0
    """Rollbacks before it."""
    details: dict[str, Any] = field(default_factory=dict)
    """change: {"set": {dotted key: value}}; the policy's: what it saw and did."""

    def line(self) -> str:
        """One line of JSON, keys in order."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @property
    def place(self) -> tuple[int, int]:
        """Where in the run it stands."""
        return self.rollbacks, self.step


class FlightLog:
    """The events of one run, on disk as soon as they are made."""

    def __init__(self, folder: Path, writes: bool = True):
        """Read what is there.

        Args:
            folder: the run's work folder.
            writes: whether this rank keeps the files; every rank keeps the list.
        """
        self.path, self.journal, self.writes = folder / NAME, folder / "journal.jsonl", writes
        self.events = read(self.path) if self.path.exists() else []

    def add(self, event: Event) -> bool:
        """Keep an event, unless it is there already; answer whether it was new."""
        if event in self.events:
            return False
        self.events.append(event)
        if self.writes:
            artefacts.write_atomic(self.path, self.text())
            self.note(asdict(event))
        return True

    def changes_at(self, rollbacks: int, step: int) -> list[Event]:
        """The changes that were made at one place, in order."""
        return [event for event in self.events if event.what == "change" and event.place == (rollbacks, step)]

    def note(self, what: dict[str, Any]) -> None:
        """Add a line with the time to the journal, which is no part of the artefact (restarts, node failures)."""
        if self.writes:
            with open(self.journal, "a") as file:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                file.write(json.dumps({"time": stamp, **what}, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def text(self) -> str:
        """All events as JSON lines."""
        return "".join(event.line() for event in self.events)


def read(path: Path) -> list[Event]:
    """The events of a flight log.

    Raises:
        UserError: a line that is none.
    """
    found = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            event = Event(**json.loads(line))
            if event.what not in WHAT:
                raise ValueError(f"{event.what!r} is none of {', '.join(WHAT)}")
        except (ValueError, TypeError) as e:
            raise UserError(f"{path}, line {number}: no event of a flight log ({e})") from None
        found.append(event)
    return found


def changes(events: Iterable[Event]) -> list[Event]:
    """What another run has to be told in order to fly the same course: the policy decides anew by itself."""
    return [event for event in events if event.what == "change"]
