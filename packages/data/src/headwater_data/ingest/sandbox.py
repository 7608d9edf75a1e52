"""A worker process for code that hostile input can crash, hang or bloat: parsers of web pages.

The worker has a limit on its memory, and each item one on its time. What exceeds one costs the item and a new worker,
and nothing else: the parent goes on with the next. Nested elements alone make lexbor's time grow with the square of
their depth (20,000 `<div>`: 8 seconds), so a limit on size is not enough.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import struct
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

_HEAD = struct.Struct("<Q")
BATCH_BYTES = 1 << 20
"""Items are sent together up to this size: a round trip a page would cost a tenth of its extraction."""


class Refused(Exception):
    """An item's own error, or that it exceeded a limit; `rule` names it in the rejects."""

    def __init__(self, rule: str, detail: str):
        super().__init__(rule, detail)
        self.rule, self.detail = rule, detail


class Sandbox:
    """Calls one function in a worker process, item by item.

    Args:
        function: `module:name` of a function of one argument that can be pickled, as its result.
        seconds: an item.
        memory_bytes: address space of the worker.
    """

    def __init__(self, function: str, seconds: float, memory_bytes: int):
        self.function, self.seconds, self.memory_bytes = function, seconds, memory_bytes
        self.worker: subprocess.Popen | None = None
        self.broken = False  # it has not answered: it is not asked to end, but ended

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            with contextlib.suppress(OSError):
                self.worker.stdin.close()  # type: ignore[union-attr]
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.worker.wait(0.0 if self.broken else 5.0)
            self.worker.kill()
            self.worker.wait()
            self.worker.stdout.close()  # type: ignore[union-attr]
            self.worker, self.broken = None, False

    def map(self, items: Sequence[Any]) -> list[Any]:
        """The result of each item, or the `Refused` that stands for it.

        Items go to the worker together; of those that it has not answered when it dies, the first is at fault and the
        others are sent again.
        """
        results: list[Any] = []
        while len(results) < len(items):
            answers, fault = self._try(items[len(results) :])
            results += answers
            if fault is not None:
                results.append(fault)
        return results

    def _try(self, items: Sequence[Any]) -> tuple[list[Any], Refused | None]:
        if self.worker is None:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "headwater_data.ingest.sandbox", self.function, str(self.memory_bytes)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # large arrays on pages of their own: zeros
            )  # fmt: skip
            self._receive(60.0)  # it is ready: what follows is the items' own time
        answers: list[Any] = []
        try:
            _send(self.worker.stdin, list(items))
            for _ in items:
                answers.append(self._receive(self.seconds))
        except TimeoutError:
            self.broken = True
            self.close()
            return answers, Refused("extractor_timeout", f"more than {self.seconds:g} s")
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self.close()
            return answers, Refused("extractor_crashed", f"within {self.memory_bytes / 1e6:.0f} MB")
        return answers, None

    def _receive(self, seconds: float) -> Any:
        return pickle.loads(self._bytes(_HEAD.unpack(self._bytes(_HEAD.size, seconds))[0], seconds))  # noqa: S301

    def _bytes(self, size: int, seconds: float) -> bytes:
        """So many bytes of the worker's answer; no buffer lies between, so that a wait is a wait for the worker."""
        pipe, data = self.worker.stdout.fileno(), b""  # type: ignore[union-attr]
        while len(data) < size:
            if not select.select([pipe], [], [], seconds)[0]:
                raise TimeoutError
            piece = os.read(pipe, size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


def _send(pipe: Any, value: Any) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    left = memoryview(_HEAD.pack(len(data)) + data)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def _read(pipe: Any) -> Any:
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    data = pipe.read(_HEAD.unpack(head)[0])
    return pickle.loads(data)  # noqa: S301  our own worker's bytes


def _work(function: str, memory_bytes: int) -> None:
    """The worker: answer lists of items until the input ends."""
    module, _, name = function.partition(":")
    call = getattr(import_module(module), name)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not write into the answers
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(sink, "ready")
    while True:
        try:
            items = _read(source)
        except EOFError:
            return
        for item in items:
            try:
                answer = call(item)
            except MemoryError:
                answer = Refused("extractor_memory", f"more than {memory_bytes / 1e6:.0f} MB")
            except Exception as e:  # a parser may raise anything on hostile input
                answer = Refused("unreadable_page", type(e).__name__)
            _send(sink, answer)


if __name__ == "__main__":
    from headwater_data.ingest import sandbox  # not this module's second self: its classes travel back

    sandbox._work(sys.argv[1], int(sys.argv[2]))
