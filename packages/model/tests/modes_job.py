"""One of the three processes of test_modes: trains as ranks of a launch do, several times in one process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import headwater_model.cpu  # noqa: F401

from headwater_model import checkpoint, pretrain, runtime
from headwater_model._contracts.config import parse
from headwater_model.config import PretrainConfig


def train(job: dict[str, Any], name: str, setting: str, ranks: int, port: int, report: Any = None) -> None:
    """A run of ranks 0 to `ranks` - 1, with a store of its own."""
    if int(os.environ["RANK"]) >= ranks:
        return
    os.environ.update(WORLD_SIZE=str(ranks), MASTER_PORT=str(port))
    config = parse(PretrainConfig, job[setting], "pretrain")
    inputs = {key: Path(path) for key, path in job["inputs"].items()}
    folder = Path(job["folder"]) / name
    try:
        pretrain.train(config, inputs, folder / "work", folder / "out", lambda _: None, lambda _: None, report)
    except SystemExit as ended:
        rank = os.environ["RANK"]
        newest = checkpoint.steps(folder / f"work/replica-{rank}/checkpoints")[-1].name
        (folder / f"ended-{rank}.json").write_text(json.dumps([ended.code, newest]))
    runtime.shutdown()


def ask_to_end(step: int, _: float) -> None:
    """SIGTERM comes to the second replica alone, between two meetings."""
    if step == 6 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    whole, ended, resumed, served = job["ports"]
    train(job, "whole", "local", 2, whole)
    train(job, "ended", "local", 2, ended, ask_to_end)
    train(job, "ended", "local", 2, resumed)
    train(job, "served", "asynchronous", 3, served)
