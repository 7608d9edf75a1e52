"""Several ranks on this machine: start them, die with them, and let none outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ._contracts.errors import UserError


def run(module: str, arguments: Sequence[str], ranks: int, logs: Path, dispensable: bool = False) -> None:
    """Run `python -m module ARGUMENTS` as `ranks` processes with torchrun's environment, and wait.

    Rank 0 writes to this process's output, the others to `logs/rank-N.log`. SIGTERM is handed on, and
    the ranks may take their time over it (a checkpoint). When one fails, the others are ended; where all but
    rank 0 are `dispensable`, only its end counts, and ends the others.

    Raises:
        UserError: a rank failed; its last line of output is the message.
        SystemExit: SIGTERM came (143).
    """
    logs.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    workers: list[subprocess.Popen] = []
    asked = False

    def hand_on(*_: object) -> None:
        nonlocal asked
        asked = True
        for worker in workers:
            worker.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        for rank in range(ranks):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            log = None if rank == 0 else open(logs / f"rank-{rank}.log", "w")  # noqa: SIM115  (the child's)
            command = [sys.executable, "-m", module, *arguments]
            workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            if log:
                log.close()
        failed = _wait(workers[:1] if dispensable else workers)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
        for worker in workers:
            worker.wait()
        signal.signal(signal.SIGTERM, before)
    if asked:
        raise SystemExit(143)
    if failed is not None:
        path = logs / f"rank-{failed}.log"
        last = path.read_text().strip().splitlines()[-1:] if path.exists() else []
        raise UserError(f"rank {failed} ended with code {workers[failed].returncode}; {' '.join(last)}".rstrip("; "))


def die_with_parent() -> None:
    """Called by a rank: have the kernel send SIGTERM when the process that started it ends (Linux)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:
        raise UserError("the process that started this rank is gone; start the stage again")


def _wait(workers: list[subprocess.Popen]) -> int | None:
    """Wait for all; answer the first that failed."""
    while True:
        codes = [worker.poll() for worker in workers]
        for rank, code in enumerate(codes):
            if code not in (None, 0):
                return rank
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.2)
