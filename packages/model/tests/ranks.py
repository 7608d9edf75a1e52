"""A job of the tests on several ranks of this machine, forks of one process that has imported Megatron.

Each that starts anew pays 3 s of CPU for that. How a user's ranks start is for test_launch.py and test_pretrain.py.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from importlib import import_module
from multiprocessing.connection import wait
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["headwater_model.trainer"])
TIMEOUT_S = 600


def run(job: str, folder: Path, ranks: int) -> str:
    """Call `main(folder)` of a module beside this one on all ranks, which have to end well; answer what they wrote to
    their error stream."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    errors, end = folder / "errors.txt", time.monotonic() + TIMEOUT_S
    started = [FORKS.Process(target=_rank, args=(job, folder, errors, rank, ranks, port)) for rank in range(ranks)]
    errors.touch()
    for process in started:
        process.start()
    try:
        while running := [process.sentinel for process in started if process.exitcode is None]:
            wait(running, end - time.monotonic())
            codes = [process.exitcode for process in started]
            assert all(code in (None, 0) for code in codes), f"exit codes {codes}\n{errors.read_text()}"
            assert time.monotonic() < end, f"not done after {TIMEOUT_S} s\n{errors.read_text()}"
    finally:
        for process in started:
            process.kill()
            process.join()
    return errors.read_text()


def _rank(job: str, folder: Path, errors: Path, rank: int, ranks: int, port: int) -> None:
    """One rank, with torchrun's environment."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()} | {"GLOO_SOCKET_IFNAME": "lo"}
    import_module(job).main(folder)
