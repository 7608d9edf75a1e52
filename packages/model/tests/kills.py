"""Kill ranks of a running launch at random moments, by a seed: no machine chooses the moment it fails at, either."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

from headwater_model.watchdog import read_heartbeat


class Killer(threading.Thread):
    """Kills one of this process's ranks after random pauses until `wanted` are killed or the block ends.

    Half of the kills wait until the ranks have made some steps, and fall in the middle of one or of a checkpoint; the
    others wait some seconds, and mostly fall in imports, in connecting, in loading.
    """

    def __init__(self, wanted: int, seed: int, ranks: Path, longest_s: float = 4.0):
        super().__init__(daemon=True)
        self.wanted, self.ranks, self.longest_s = wanted, ranks, longest_s
        self.random = random.Random(seed)
        self.killed: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        """Events of the launch, to be filled by it."""
        self._over = threading.Event()

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while len(self.killed) < self.wanted and not self._over.is_set():
            rank = self.random.randrange(2)
            if self.random.random() < 0.5:
                self._wait_for_steps(rank, self.random.randrange(1, 20))
            elif self._over.wait(self.random.uniform(0, self.longest_s)):
                return
            process = self._ranks().get(rank)
            if process is not None:
                self.killed.append({"rank": rank, "step": self._step(rank)})
                os.kill(process, signal.SIGKILL)
                while self._ranks().get(rank) == process and not self._over.wait(0.05):
                    pass

    def _wait_for_steps(self, rank: int, steps: int) -> None:
        """Until the living rank has made so many."""
        first = None
        while not self._over.wait(0.002):
            step = self._step(rank)
            if step is None:
                first = None
            elif first is None or step < first:
                first = step
            elif step >= first + steps:
                return

    def _step(self, rank: int) -> int | None:
        beat = read_heartbeat(self.ranks / f"rank-{rank}.heartbeat")
        return beat[0] if beat else None

    def _ranks(self) -> dict[int, int]:
        """Rank -> process, of this process's children that live."""
        found = {}
        for pid in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
            for child in pid.read_text().split():
                try:
                    raw = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                    state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                rank = next((int(v[5:]) for v in raw if v.startswith(b"RANK=")), None)
                if rank is not None and state != "Z":
                    found[rank] = int(child)
        return found
