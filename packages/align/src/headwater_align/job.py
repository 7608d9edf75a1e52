"""A training stage on one rank or many: the ranks train, then one process exports and measures.

    run(run)  ->  start(run, train)  ->  train(run, rank_files) on every rank  ->  weights in work/final
              ->  trained(run, ...)   the whole model on one rank, whatever the layout was

One rank trains in the stage's own process. More are processes that headwater-model's launcher starts, watches and, when
one dies or hangs, starts again from the newest good checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from ._contracts.stage import Run
from .config import TrainingConfig
from .engine import (
    GPT,
    Head,
    Loaded,
    Trainer,
    check_layout,
    checkpoint,
    dist,
    launch,
    lora,
    pretrained,
    runtime,
    settings_of,
    torch,
)

Train = Callable[[Run, Path | None], None]
"""One rank's part: (run, where the watchdog's files go, None outside of a launcher). It leaves what it learnt by
`leave_weights`, and writes into run.out on the first rank only."""


def start(run: Run, train: Train, *inputs: str, whole_rows: str = "") -> None:
    """Train on all ranks of the config's layout and wait for them.

    Args:
        inputs: names of the folders whose models the layout has to divide: refused here, before any rank starts.
        whole_rows: why the positions of a row can't be split over context ranks; empty: they can.

    Raises:
        UserError: a layout or setting that cannot be; a rank failed and no restart is left.
        SystemExit: SIGTERM came; a checkpoint of the last step is in run.work (143).
    """
    settings = settings_of(run.config, run.stage.name)
    if whole_rows and settings.parallel.context > 1:
        raise UserError(f"{run.stage.name}.parallel.context: {whole_rows}; set it to 1")
    for name in inputs:
        check_layout(settings, pretrained.read_config(run.inputs[name])[0], run.stage.name)
    if settings.ranks == 1 and settings.launch.kind == "here":
        runtime.initialize(settings.parallel, seed=settings.seed)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        train(run, None)
        return
    job = {
        "stage": run.stage.name,
        "train": f"{train.__module__}:{train.__name__}",
        "config": run.config.everything(),
        "inputs": {name: str(path) for name, path in run.inputs.items()},
        "work": str(run.work),
        "out": str(run.out),
        "fingerprint": run.fingerprint,
    }
    path = run.work / "job.json"
    write_atomic(path, canonical_json(job))
    launch.start(
        settings.launch, __name__, [str(path)], settings.ranks, run.work / "ranks", settings.restarts,
        lambda event: run.log(f"{event['what']} after step {event['step']}: {event['why']}"),
    )  # fmt: skip
    run.measured.update(json.loads((run.work / "measured.json").read_text()))
    runtime.initialize(seed=settings.seed)  # this process goes on alone, with whole models


def leave_weights(run: Run, **trainers: Trainer) -> None:
    """Write the trainers' weights, each under its name, where `trained` finds them; collective.

    Adapters are merged: these trainers train no more.
    """
    for trainer in trainers.values():
        if trainer.module.lora is not None:
            lora.merge(trainer.module)

    def write(folder: Path) -> None:
        for name, trainer in trainers.items():
            checkpoint.write(folder / name, trainer.weights())

    checkpoint.save_step(run.work / "final", 0, write, keep=1)


def trained(run: Run, given: Path, name: str = "model", head: Head = "lm", dtype: str | None = None) -> Loaded[GPT]:
    """What `leave_weights` left, as a whole model on this one rank.

    Args:
        given: the folder that training started from: its shape and its tokenizer hold.
        name: the trainer's.
        dtype: "float32" or "bfloat16"; None: the config's.
    """
    loaded = pretrained.load(given, head=head, dtype=pretrained.TYPES[dtype or run.config.dtype])
    folder = checkpoint.place(run.work / "final", 0) / name
    read = checkpoint.read(folder, {"model": loaded.model.sharded_state_dict()})
    loaded.model.load_state_dict(read["model"])
    return loaded


class _Other(Run):
    """The run as ranks other than the first see it: they have nothing to say."""

    def log(self, text: str) -> None:
        """Nothing."""

    def progress(self, text: str, every: float = 5.0) -> None:
        """Nothing."""


def _rank(path: Path, rank_files: Path | None) -> None:
    """One of several ranks, started by `start`, torchrun or srun."""
    from .cli import STAGES

    job = json.loads(path.read_text())
    stage = next(stage for stage in STAGES if stage.name == job["stage"])
    config = stage.config(**job["config"])
    assert isinstance(config, TrainingConfig)
    settings = settings_of(config, stage.name)
    runtime.initialize(settings.parallel, seed=settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    inputs = {name: Path(folder) for name, folder in job["inputs"].items()}
    kind = Run if dist.get_rank() == 0 else _Other
    run = kind(stage, config, inputs, Path(job["work"]), Path(job["out"]), job["fingerprint"])
    module, _, function = job["train"].partition(":")
    getattr(import_module(module), function)(run, rank_files)
    if dist.get_rank() == 0:
        write_atomic(run.work / "measured.json", canonical_json(run.measured))
    dist.barrier()
    runtime.shutdown()


if __name__ == "__main__":
    sys.exit(launch.as_rank(partial(_rank, Path(sys.argv[1]))))
