"""A hang ends the process, a slow step does not; the heartbeat outlives the rank."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater_model.config import RestartConfig
from headwater_model.watchdog import HUNG, Watchdog, read_heartbeat

QUICK = RestartConfig(hang_factor=3, hang_floor_s=0.3, hang_start_s=30)


def rank(how: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), *sys.path]))}
    environment |= {"RANK": "1", "HEADWATER_RANK_FILES": str(folder)}
    command = [sys.executable, "-m", "rank_job", how, "8", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_hang_ends_with_its_own_code_and_every_threads_stack(tmp_path):
    done = rank("hang", tmp_path)
    assert done.returncode == HUNG and "no step finished for 0.5 s after step 5" in done.stderr
    assert "wait_for_ever" in (tmp_path / "rank-1.stacks").read_text()


def test_a_library_that_holds_the_interpreters_lock_is_ended_too(tmp_path):
    since = time.monotonic()
    done = rank("stuck", tmp_path)
    assert done.returncode == 1 and time.monotonic() - since < 50, "it would sleep for 60 s"
    assert "File" in (tmp_path / "rank-1.stacks").read_text()


def test_the_heartbeat_of_a_killed_rank_tells_its_last_step(tmp_path):
    assert read_heartbeat(tmp_path / "rank-1.heartbeat") is None
    before = time.time()
    assert rank("killed", tmp_path).returncode == -9
    step, when = read_heartbeat(tmp_path / "rank-1.heartbeat")
    assert step == 5 and before < when < time.time()


def test_slow_steps_raise_the_limit_and_patience_lifts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended"))
    watchdog = Watchdog(QUICK, tmp_path)
    for step in range(1, 5):
        time.sleep(0.2)
        watchdog.beat(step)
    time.sleep(0.45)  # above the floor, below 3 x 0.2 s
    watchdog.beat(5)
    with watchdog.patience():
        time.sleep(0.9)
    watchdog.beat(6)
    watchdog.stop()
    assert not (tmp_path / "rank-0.stacks").read_text()
