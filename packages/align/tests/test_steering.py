"""A tuning run under way takes orders as a pre-training run does, but for what was settled before its first step."""

from argparse import Namespace

import pytest

from headwater_align import jsonl
from headwater_align._contracts.stage import Run
from headwater_align.cli import main
from headwater_model._contracts.errors import UsageError
from headwater_model.steering import steer


def test_an_order_changes_the_learning_rate_and_not_the_batch(stage_runs, tmp_path, monkeypatch):
    def order(*items: str) -> None:
        steer(Namespace(work=tmp_path / "work", set=list(items), why="by hand"))

    asked = []

    def progress(run: Run, text: str, every: float = 5.0) -> None:
        if not asked:
            for held in ("batch=2", 'activation="gelu"'):
                with pytest.raises(
                    UsageError, match=rf"settings\.{held.split('=')[0]} can't change in a run of this kind"
                ):
                    order(held)
            order("optimizer.lr=0.0001")
            asked.append(text)

    monkeypatch.setattr(Run, "progress", progress)
    inputs, options = stage_runs["sft"]
    given = [part for name, folder in inputs.items() for part in ("--in", f"{name}={folder}")]
    assert main(["sft", *given, *options, "--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]) == 0
    change, kept = jsonl.read(tmp_path / "out" / "flight.jsonl")
    assert (change["what"], change["why"], change["details"]["set"]) == ("change", "by hand", {"optimizer.lr": 0.0001})
    assert kept["what"] == "optimizer"
