"""PPO killed at its most awkward places and started again: the same bytes, and answers are not sampled twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.ppo import course

PROGRAM = Path(__file__).with_name("ppo_kills.py")


def arguments(stage_runs, folder, name, dtype):
    inputs, options = stage_runs["ppo"]
    given = [part for role, path in inputs.items() for part in ("--in", f"{role}={path}")]
    more = ["--set", f"dtype={dtype}", "--set", "steps=6"]
    return ["ppo", *given, *options, *more, "--out", f"{folder}/{name}", "--work", f"{folder}/{name}.work"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_killed_between_answers_and_update_and_between_the_two_updates(
    dtype, stage_runs, tmp_path, monkeypatch, capsys
):
    killed = arguments(stage_runs, tmp_path, "killed", dtype)
    # Checkpoints after steps 2 and 4, two updates of each model a step: dies in step 3, and again in step 5.
    for place, times in (("answers", 2), ("value", 4)):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", str(PROGRAM), place, str(times), *killed],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert run.returncode == 137, run.stdout + run.stderr
    kept = {int(path.stem.removeprefix("step-")) for path in tmp_path.glob("killed.work/ppo/*/rollouts/*")}
    assert kept == {5}

    sampled = []
    real = course.sample
    monkeypatch.setattr(course, "sample", lambda *given: sampled.append(1) or real(*given))
    assert main(killed) == 0
    assert "going on after step 4" in capsys.readouterr().out
    assert len(sampled) == 1  # step 6; the answers of step 5 lay on the disk
    assert main(arguments(stage_runs, tmp_path, "whole", dtype)) == 0
    assert manifest.read(tmp_path / "killed").files == manifest.read(tmp_path / "whole").files
