"""Killed with -9 in the middle and started again: the same bytes, and not all the work again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main

TWO_RANKS = ["--set", "parallel={data: 2, zero: 1}", "--set", "threads=1"]


@pytest.mark.parametrize(
    ("stage", "more"),
    [("sft", []), ("sft", TWO_RANKS), ("reward", []), ("dpo", []), ("ppo", [])],
    ids=["sft", "sft on two ranks", "reward", "dpo", "ppo"],
)
def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(stage, more, stage_runs, tmp_path, capfd):
    inputs, options = stage_runs[stage]
    given = [part for name, folder in inputs.items() for part in ("--in", f"{name}={folder}")]

    def arguments(name):
        return [stage, *given, *options, *more, "--out", f"{tmp_path}/{name}", "--work", f"{tmp_path}/{name}.work"]

    program = "import sys; from headwater_align.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, *arguments("killed")], env=environment)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed.work/*/*/checkpoints/step-*")):
        assert process.poll() is None and time.monotonic() < deadline, "ended before its first checkpoint"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()

    assert main(arguments("killed")) == 0
    assert "going on " in capfd.readouterr().out
    assert main(arguments("whole")) == 0
    assert manifest.read(tmp_path / "killed").files == manifest.read(tmp_path / "whole").files
