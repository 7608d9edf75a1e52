"""A rank that hangs ends itself: stacks on disk, an exit code that the launcher knows, and a heartbeat that survives.

A collective that waits for a lost peer waits for minutes, a deadlock for ever. A thread looks whether a step has
finished in the time that steps usually take; if not, it writes every thread's stack and ends the process. Should the
interpreter itself be stuck (a library that holds its lock), faulthandler's own timer, which needs no Python, does the
same later.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import statistics
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .training_config import RestartConfig

HUNG = 86
"""Exit code of a rank that ended itself."""
_HEARTBEAT = struct.Struct("<qd")


class Watchdog:
    """One rank's. Call `beat` after each step; wrap what takes long between steps in `patience`."""

    def __init__(self, config: RestartConfig, folder: Path | None = None, rank: int = 0, step: int = 0):
        """Start watching; `config.hang_start_s` for the first steps.

        Args:
            folder: for `rank-N.heartbeat` (see `read_heartbeat`) and `rank-N.stacks`; none of them if None.
            step: finished before.
        """
        self._config = config
        self._step, self._last = step, time.monotonic()
        self._times: deque[float] = deque(maxlen=100)
        self._limit = config.hang_start_s
        self._deadline = self._last + self._limit
        self._heartbeat = _Heartbeat(folder / f"rank-{rank}.heartbeat") if folder else None
        self._stacks: Any = open(folder / f"rank-{rank}.stacks", "a") if folder else sys.stderr  # noqa: SIM115
        self._where = self._stacks.name
        self._armed, self._armed_limit = float("-inf"), float("inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._tell(step)
        self._thread.start()

    def beat(self, step: int) -> None:
        """A step has finished."""
        now = time.monotonic()
        self._times.append(now - self._last)
        if len(self._times) >= 3:  # the first ones compile, allocate, connect
            usual = statistics.median(self._times)
            self._limit = max(self._config.hang_floor_s, self._config.hang_factor * usual)
        self._last = now
        self._tell(step)

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """A block that may take `config.hang_start_s`: validation, loading, waiting for a disk."""
        usual, self._limit = self._limit, self._config.hang_start_s
        self._tell(self._step)
        try:
            yield
        finally:
            self._limit, self._last = usual, time.monotonic()
            self._tell(self._step)

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        faulthandler.cancel_dump_traceback_later()
        self._thread.join()
        if self._heartbeat:
            self._heartbeat.close()
            self._stacks.close()

    def _tell(self, step: int) -> None:
        now = time.monotonic()
        self._step, self._deadline = step, now + self._limit
        # Each time starts a thread, so not for nothing; half a limit and 5 s are allowed for that.
        if now - self._armed > 1 or not 0.8 < self._limit / self._armed_limit < 1.2:
            self._armed, self._armed_limit = now, self._limit
            faulthandler.dump_traceback_later(self._limit * 1.5 + 5, exit=True, file=self._stacks)
        if self._heartbeat:
            self._heartbeat.write(step)

    def _watch(self) -> None:
        while not self._stop.wait(max(0.05, min(1.0, self._deadline - time.monotonic()))):
            if time.monotonic() > self._deadline:
                why = f"no step finished for {self._limit:.3g} s after step {self._step}"
                print(f"hang: {why}; stacks in {self._where}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(self._stacks, all_threads=True)
                self._stacks.flush()
                os._exit(HUNG)


class _Heartbeat:
    """Step and time in a mapped file: writing costs no system call, and the kernel keeps it when the rank is killed."""

    def __init__(self, path: Path):
        with open(path, "w+b") as f:
            f.truncate(_HEARTBEAT.size)
            self._map = mmap.mmap(f.fileno(), _HEARTBEAT.size)

    def write(self, step: int) -> None:
        _HEARTBEAT.pack_into(self._map, 0, step, time.time())

    def close(self) -> None:
        self._map.close()


def read_heartbeat(path: Path) -> tuple[int, float] | None:
    """(last finished step, Unix time) of a rank on this machine, dead or alive; None if it never came so far."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    return _HEARTBEAT.unpack(raw) if len(raw) == _HEARTBEAT.size and any(raw) else None
