"""One process of benchmarks/decentralised.py: makes its part of every run; process 0 writes what came of them."""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import headwater_model.cpu  # noqa: F401

import numpy as np
import torch
import torch.distributed as dist

from headwater_model import runtime
from headwater_model.config import (
    AsyncConfig,
    LocalSGDConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
)
from headwater_model.decentralised.local import LocalTrainer
from headwater_model.decentralised.peers import join
from headwater_model.decentralised.server import ParameterServer
from headwater_model.decentralised.worker import Worker
from headwater_model.gpt import build
from headwater_model.trainer import Batch, Trainer, next_token_loss

PROCESSES = 5
"""Four workers and a server."""
SHAPE = ModelConfig(layers=2, hidden=64, heads=4, vocab=512, context=64)
SEQUENCES = 8
"""Of a step, over all ranks."""


@dataclass(frozen=True)
class Case:
    """One run."""

    mode: str
    """synchronous, local or asynchronous."""
    ranks: int
    """That compute gradients."""
    steps: int
    lr: float
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    """Of LocalSGDConfig or AsyncConfig."""
    sleeps: str = ""
    """"": nobody; "one": the last rank, at every sequence; "all": every rank, at one batch in twenty."""


class Text:
    """Windows of one stream of ids, in an order drawn from a seed; and held-out windows."""

    def __init__(self, folder: Path, seed: int):
        width = SHAPE.context + 1
        stream, heldout = np.load(folder / "train.npy"), np.load(folder / "heldout.npy")
        self._windows = torch.from_numpy(stream[: len(stream) // width * width].astype(np.int64)).view(-1, width)
        self._heldout = torch.from_numpy(heldout[: len(heldout) // width * width].astype(np.int64)).view(-1, width)
        self._order = torch.randperm(len(self._windows), generator=torch.Generator().manual_seed(seed))

    def batch(self, step: int, rank: int, ranks: int) -> list[Batch]:
        """A rank's share of a step."""
        share = SEQUENCES // ranks
        first = step * SEQUENCES + rank * share
        return [_batch(self._windows[self._order[torch.arange(first, first + share) % len(self._order)]])]

    def heldout(self) -> list[Batch]:
        """The same on every rank."""
        return [_batch(part) for part in self._heldout.split(64) if len(part) == 64]


def _batch(windows: torch.Tensor) -> Batch:
    return {"tokens": windows[:, :-1].contiguous(), "labels": windows[:, 1:].contiguous()}


def run(case: Case, name: str, folder: Path, store: dist.Store, rank: int) -> dict[str, Any] | None:
    """This process's part of one run; process 0 answers what came of it."""
    processes = case.ranks + (case.mode == "asynchronous")
    if rank >= processes:
        return None
    os.environ["WORLD_SIZE"] = str(processes)  # of this run
    one_world = case.mode == "synchronous"
    parallel = ParallelConfig(data=case.ranks if one_world else 1)
    peers = join(1 if one_world else processes, parallel, case.seed, dist.PrefixStore(name, store))
    text, model = Text(folder, case.seed), build(SHAPE, dtype=torch.float32, seed=case.seed)
    optimizer = OptimizerConfig(lr=case.lr)
    schedule = ScheduleConfig(kind="cosine", warmup=case.steps // 20, steps=case.steps, floor=0.1)
    if case.mode == "asynchronous" and rank:
        nap = _nap(case, rank - 1)

        def read(step: int) -> list[Batch]:
            nap(step, SEQUENCES)
            return text.batch(step, 0, 1)

        Worker(model, optimizer, schedule).work(peers, read, next_token_loss)
        runtime.shutdown()
        return None
    if case.mode == "asynchronous":
        config = AsyncConfig(workers=case.ranks, **case.settings)
        trainer: Trainer = ParameterServer(model, optimizer, schedule, peers, config)
    elif case.mode == "local":
        trainer = LocalTrainer(model, optimizer, schedule, peers, LocalSGDConfig(replicas=case.ranks, **case.settings))
    else:
        trainer = Trainer(model, optimizer, schedule)
    nap = _nap(case, rank)
    rows, clock = [], time.monotonic()
    for step in range(case.steps):
        if case.mode == "asynchronous":
            rows.append(trainer.step((), next_token_loss))
            continue
        nap(step, SEQUENCES // case.ranks)
        rows.append(trainer.step(text.batch(step, rank, case.ranks), next_token_loss))
    seconds = time.monotonic() - clock
    loss = trainer.evaluate(text.heldout(), next_token_loss)["loss"]
    runtime.shutdown()
    gradients = 4.0 * SHAPE.parameters * case.steps * (case.ranks > 1)  # what data parallelism hands to its all-reduce
    parts = case.ranks if case.mode == "asynchronous" else 1  # the server's rows count all workers' bytes
    stale = [row.get("staleness", 0.0) for row in rows]
    return {
        "loss": loss,
        "seconds": seconds,
        "megabytes": (gradients if one_world else sum(row["communicated_bytes"] for row in rows) / parts) / 1e6,
        "staleness": [statistics.mean(stale), max(stale)],
        "slowest": sum(row.get("worker") == case.ranks for row in rows),
    }


def _nap(case: Case, rank: int) -> Callable[[int, int], None]:
    """What this rank does before a batch of so many sequences."""

    def nap(step: int, sequences: int) -> None:
        if case.sleeps == "one" and rank == case.ranks - 1:
            time.sleep(0.04 * sequences)
        if case.sleeps == "all" and random.Random(f"{step} {rank}").random() < 0.05:
            time.sleep(0.1 * sequences)

    return nap


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    store = next(dist.rendezvous("env://"))[0]
    cases = [Case(**case) for case in json.loads((folder / "cases.json").read_text())]
    found = []
    for number, case in enumerate(cases):
        found.append(run(case, str(number), folder, store, rank))
        gc.collect()  # the run's groups, and their threads
        if rank == 0:
            print(json.dumps([case.__dict__, found[-1]]), flush=True)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
