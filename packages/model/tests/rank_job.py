"""A rank without a model, for test_launch.py and test_watchdog.py: it counts steps, and fails as it is told to.

python -m rank_job HOW STEPS FOLDER; a file in FOLDER holds the finished steps, as a checkpoint would.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from headwater_model import launch
from headwater_model._contracts.errors import UserError
from headwater_model.training_config import RestartConfig
from headwater_model.watchdog import Watchdog

HANGS = RestartConfig(hang_factor=20, hang_floor_s=0.5, hang_start_s=20)


def fail(how: str, rank: int) -> None:
    if how == "killed" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "killed" and rank == 0:
        while Path(sys.argv[3], "saved-1").read_text() != "5":
            time.sleep(0.01)
        time.sleep(0.3)
        raise RuntimeError("connection closed by peer")
    if how == "fault" and rank == 1:
        raise ZeroDivisionError("a bug")
    if how == "user" and rank == 1:
        raise UserError("the tokens are broken; encode again")
    if how == "hang" and rank == 1:
        wait_for_ever()
    if how == "stuck" and rank == 1:
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock
    time.sleep(0.5)


def wait_for_ever() -> None:
    while True:
        time.sleep(1)


def main(folder: Path | None) -> None:
    how, steps, work = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    rank, saved = int(os.environ["RANK"]), work / f"saved-{os.environ['RANK']}"
    step = int(saved.read_text()) if saved.exists() else 0
    attempt = work / f"attempts-{rank}"
    attempt.write_text(attempt.read_text() + "x" if attempt.exists() else "x")
    watchdog = Watchdog(HANGS, folder, rank, step)
    once = how.removesuffix("-once")
    while step < steps:
        if step == 5 and (once == how or len(attempt.read_text()) == 1):
            fail(once, rank)
        time.sleep(0.01)
        step += 1
        watchdog.beat(step)
        beside = saved.with_suffix(".new")
        beside.write_text(str(step))
        beside.replace(saved)
    watchdog.stop()


if __name__ == "__main__":
    sys.exit(launch.as_rank(main))
