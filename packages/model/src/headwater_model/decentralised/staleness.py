"""Which worker may compute which batch, how stale a gradient is, and in what order gradients arrive: no torch here.

A worker's clock counts the batches that it has done. It may start another while its clock is at most `bound` ahead of
the slowest worker's (stale synchronous parallel, Ho et al. 2013, NeurIPS 26). A gradient's staleness is the
number of updates between the weights that it was computed from and the weights that it is applied to (Lian et al.
2015, arXiv:1506.08272); with N workers it is at most (2 bound + 1)(N - 1).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable


class Clocks:
    """The workers' clocks and the batches handed to them; every batch is done once, also when a worker is lost."""

    def __init__(self, workers: Iterable[int], bound: int | None, batches: int):
        """Nothing is done yet and no worker waits.

        Args:
            bound: see above; None: none.
            batches: to be done in all, numbered from 0.
        """
        self.bound, self.batches, self.updates = bound, batches, 0
        self.clocks = dict.fromkeys(workers, 0)
        self._waiting: list[int] = []
        self._computing: dict[int, tuple[int, int]] = {}
        self._returned: list[int] = []
        self._fresh = 0

    @property
    def computing(self) -> list[int]:
        """Workers with a batch, in their order."""
        return sorted(self._computing)

    @property
    def done(self) -> bool:
        """Whether every batch is done."""
        return self.updates == self.batches

    @property
    def open_batches(self) -> list[int]:
        """Batches handed out or given back and not done."""
        return sorted([*self._returned, *(batch for batch, _ in self._computing.values())])

    def restore(self, updates: int, open_batches: list[int]) -> None:
        """Go on where so many updates were made; batches that were being computed are to be computed again."""
        self.updates, self._fresh = updates, updates + len(open_batches)
        self._returned = list(open_batches)

    def wait(self, worker: int) -> None:
        """A worker asks for a batch."""
        self._waiting.append(worker)

    def start(self) -> list[tuple[int, int]]:
        """Give batches to the waiting workers that may start, in the order in which they asked: (worker, batch)."""
        limit = None if self.bound is None else min(self.clocks.values(), default=0) + self.bound
        started: list[tuple[int, int]] = []
        for worker in list(self._waiting):
            if (limit is None or self.clocks[worker] <= limit) and (self._returned or self._fresh < self.batches):
                self._waiting.remove(worker)
                batch = self._next()
                self._computing[worker] = (batch, self.updates)
                started.append((worker, batch))
        return started

    def finish(self, worker: int) -> tuple[int, int]:
        """Its gradient is applied now: the batch, and the gradient's staleness in updates."""
        batch, version = self._computing.pop(worker)
        staleness = self.updates - version
        self.updates += 1
        self.clocks[worker] += 1
        return batch, staleness

    def lose(self, worker: int) -> None:
        """Strike a worker off; nobody waits for it, and its batch goes to another."""
        del self.clocks[worker]
        if worker in self._waiting:
            self._waiting.remove(worker)
        if worker in self._computing:
            heapq.heappush(self._returned, self._computing.pop(worker)[0])

    def _next(self) -> int:
        if self._returned:
            return heapq.heappop(self._returned)
        self._fresh += 1
        return self._fresh - 1


class SeededArrivals:
    """Whose gradient is taken next, drawn from a seed: asynchronous runs that can be repeated bit for bit."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)
        self._due: int | None = None

    def due(self, computing: list[int]) -> int:
        """One of the workers that compute; the same one until it is `taken` or gone."""
        if self._due not in computing:
            self._due = self._random.choice(computing)
        return self._due

    def taken(self) -> None:
        """The due gradient was applied."""
        self._due = None


def damping(staleness: int) -> float:
    """Factor of the learning rate of a stale gradient: 1 / staleness (Zhang et al. 2015, arXiv:1511.05950)."""
    return 1 / max(1, staleness)
