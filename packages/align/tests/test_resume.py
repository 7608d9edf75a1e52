"""Killed with -9 in the middle and started again: the same bytes, and not all the work again."""

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main

TWO_RANKS = ["--set", "parallel={data: 2, zero: 1}", "--set", "threads=1"]


@pytest.mark.parametrize(
    ("stage", "more"),
    [("sft", []), ("sft", TWO_RANKS), ("reward", []), ("dpo", []), ("ppo", [])],
    ids=["sft", "sft on two ranks", "reward", "dpo", "ppo"],
)
def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(stage, more, stage_runs, kill_when, tmp_path, capfd):
    inputs, options = stage_runs[stage]
    given = [part for name, folder in inputs.items() for part in ("--in", f"{name}={folder}")]

    def arguments(name):
        return [stage, *given, *options, *more, "--out", f"{tmp_path}/{name}", "--work", f"{tmp_path}/{name}.work"]

    kill_when(lambda: list(tmp_path.glob("killed.work/*/*/checkpoints/step-*")), arguments("killed"))
    assert not (tmp_path / "killed").exists()

    assert main(arguments("killed")) == 0
    assert "going on " in capfd.readouterr().out
    assert main(arguments("whole")) == 0
    assert manifest.read(tmp_path / "killed").files == manifest.read(tmp_path / "whole").files
