"""One of the four processes of test_decentralised: makes all runs that need several, and writes what came of them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if sys.argv[1:2] == ["dispensable"]:  # for the test of the launcher: all but rank 0 fail
    sys.exit(0 if os.environ["RANK"] == "0" else 3)

import headwater_model.cpu  # noqa: F401

import torch
import torch.distributed as dist
from torch import Tensor

from headwater_model import checkpoint, runtime
from headwater_model._contracts.errors import UserError
from headwater_model.config import (
    AsyncConfig,
    LocalSGDConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
)
from headwater_model.decentralised import wire
from headwater_model.decentralised.local import LocalTrainer
from headwater_model.decentralised.peers import Peers, join, newest_common
from headwater_model.decentralised.server import ParameterServer
from headwater_model.decentralised.worker import Worker
from headwater_model.gpt import build
from headwater_model.trainer import Batch, Trainer, next_token_loss

SHAPE = ModelConfig(layers=1, hidden=32, heads=2, vocab=64, context=16)
SEQUENCES = 8
"""Of a batch, over all replicas."""
PLAIN = OptimizerConfig(lr=0.1, weight_decay=0.0, clip=0.0)


def sequences(step: int, first: int = 0, count: int = SEQUENCES) -> list[Batch]:
    """A part of a step's batch, the same whoever asks: sums of two earlier ids, so that there is something to learn."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(SHAPE.vocab // 2, (SEQUENCES, SHAPE.context + 1), generator=generator)
    ids[:, 1::2] = ids[:, 0:-1:2] + 1
    mine = ids[first : first + count]
    return [{"tokens": mine[:, :-1].contiguous(), "labels": mine[:, 1:].contiguous()}]


def use_sgd(trainer: Trainer) -> None:
    """SGD without momentum in the place of Megatron's AdamW."""
    for part in trainer.optimizer.chained_optimizers:
        groups = [{k: v for k, v in g.items() if k not in part.optimizer.defaults} for g in part.optimizer.param_groups]
        part.optimizer = torch.optim.SGD(groups, lr=trainer.optimizer.param_groups[0]["lr"])


def flat(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().reshape(-1).float() for p in trainer.module.parameters()])


def constant(steps: int) -> ScheduleConfig:
    return ScheduleConfig(kind="constant", steps=steps)


def local(
    peers: Peers, config: LocalSGDConfig, steps: int, optimizer: OptimizerConfig = PLAIN, dtype=torch.float32
) -> LocalTrainer:
    return LocalTrainer(build(SHAPE, dtype=dtype, seed=3), optimizer, constant(steps), peers, config)


def run_local(trainer: LocalTrainer, until: int) -> list[dict[str, float]]:
    share = SEQUENCES // trainer.peers.size
    rows = []
    while trainer.step_count < until:
        batches = sequences(trainer.step_count, trainer.peers.rank * share, share)
        rows.append(trainer.step(batches, next_token_loss))
    return rows


def gap(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def spread(peers: Peers, values: Tensor) -> float:
    """How far the replicas' values are from their mean."""
    mean = values.clone()
    peers.mean(mean)
    return max(gap(mean, values), peers.largest(int(gap(mean, values) * 1e12)) / 1e12)


def averaged_sgd(peers: Peers) -> dict[str, float]:
    """Local SGD that meets at every step, beside one process on the whole batch."""
    trainer = local(peers, LocalSGDConfig(replicas=4, inner_steps=1, outer_lr=1.0, outer_momentum=0.0), 4)
    use_sgd(trainer)
    run_local(trainer, 4)
    whole = Trainer(build(SHAPE, seed=3), PLAIN, constant(4))
    use_sgd(whole)
    start = flat(whole)
    for step in range(4):
        whole.step(sequences(step), next_token_loss)
    return {"gap": gap(flat(whole), flat(trainer)), "moved": gap(flat(whole), start)}


def alone() -> dict[str, float]:
    """One replica beside plain training whose weights are moved by hand as the paper says, or not at all."""
    adamw = OptimizerConfig(lr=0.01)
    gaps = {}
    for name, rate, momentum in (("mean", 1.0, 0.0), ("nesterov", 0.7, 0.9)):
        config = LocalSGDConfig(replicas=1, inner_steps=3, outer_lr=rate, outer_momentum=momentum)
        trainer = local(Peers(dist.HashStore(), 0, 1), config, 6, adamw)
        run_local(trainer, 6)
        plain = Trainer(build(SHAPE, seed=3), adamw, constant(6))
        velocity = torch.zeros_like(flat(plain))
        for first in (0, 3):
            meeting = flat(plain)
            for step in range(first, first + 3):
                plain.step(sequences(step), next_token_loss)
            gradient = meeting - flat(plain)
            velocity = momentum * velocity + gradient
            if name == "nesterov":
                wire.set_weights(plain.module, meeting - rate * (gradient + momentum * velocity))
        gaps[name] = gap(flat(plain), flat(trainer))
    return gaps


def diloco(peers: Peers, folder: Path) -> dict[str, object]:
    """Bfloat16 with AdamW inside and Nesterov outside; saved between two meetings, and gone on with."""
    config, adamw = LocalSGDConfig(replicas=4, inner_steps=4), OptimizerConfig(lr=0.01)
    whole = local(peers, config, 10, adamw, torch.bfloat16)
    rows = run_local(whole, 6)
    apart = spread(peers, flat(whole))
    whole.save(folder)
    rows += run_local(whole, 8)
    together = spread(peers, flat(whole))
    rows += run_local(whole, 10)
    resumed = local(peers, config, 10, adamw, torch.bfloat16)
    resumed.load(folder)
    run_local(resumed, 10)
    return {
        "apart": apart,
        "together": together,
        "last": spread(peers, flat(whole)),
        "resumed": torch.equal(flat(resumed), flat(whole)) and torch.equal(resumed.meeting, whole.meeting),
        "bytes": [row["communicated_bytes"] for row in rows],
        "parameters": SHAPE.parameters,
        "losses": [row["loss"] for row in rows],
        "evaluated": whole.evaluate(sequences(99, peers.rank * 2, 2), next_token_loss),
        "expected": Trainer.evaluate(whole, sequences(99), next_token_loss),
    }


def common(peers: Peers, root: Path) -> dict[str, object]:
    """The second replica's checkpoint of step 16 is damaged, the third never made its of step 24."""
    said: list[str] = []
    for step in (8, 16, 24):
        if (peers.rank, step) == (2, 24):
            continue
        folder = checkpoint.save_step(root, step, lambda folder: (folder / "weights").write_text("x") and None, keep=3)
        if (peers.rank, step) == (1, 16):
            (folder / "weights").write_text("y")
    found = newest_common(root, peers, said.append)
    return {"found": found and found.name, "left": [p.name for p in checkpoint.steps(root)], "said": said}


def islands(first: Peers) -> dict[str, float]:
    """Two replicas, each of two tensor-parallel ranks, beside the same two of one rank each."""
    runtime.shutdown()
    peers = join(2, ParallelConfig(tensor=2), seed=1, store=dist.PrefixStore("islands", first.store))
    config, adamw = LocalSGDConfig(replicas=2, inner_steps=3), OptimizerConfig(lr=0.01)
    split = run_local(local(peers, config, 7, adamw), 7)
    runtime.shutdown()
    rank = int(os.environ["RANK"])
    os.environ.update(RANK=str(rank // 2), WORLD_SIZE="2")  # ranks 0 and 2, and 1 and 3, make the same run
    peers = join(2, seed=1, store=dist.PrefixStore(f"plain-{rank % 2}", first.store))
    whole = run_local(local(peers, config, 7, adamw), 7)
    return {"gap": max(abs(a["loss"] - b["loss"]) for a, b in zip(split, whole, strict=True))}


def asynchronous(
    store: dist.Store, rank: int, size: int, config: AsyncConfig, steps: int, dtype=torch.float32,
    dies_at: int | None = None, stops: Path | None = None, loads: Path | None = None,
) -> dict[str, object]:  # fmt: skip
    """One run.

    Args:
        dies_at: batch from which on the last worker's process ends.
        stops: half way the server saves into this folder and stops; `loads`: it goes on from there.
    """
    peers = Peers(store, rank, size)
    adamw = OptimizerConfig(lr=0.01)
    if rank:

        def read(batch: int) -> Sequence[Batch]:
            if dies_at is not None and rank == size - 1 and batch >= dies_at:
                os._exit(0)
            return sequences(batch)

        worker = Worker(build(SHAPE, dtype=dtype, seed=5), adamw, constant(steps))
        return {"done": worker.work(peers, read, next_token_loss)}
    said: list[str] = []
    server = ParameterServer(build(SHAPE, dtype=dtype, seed=3), adamw, constant(steps), peers, config, said.append)
    if loads:
        server.load(loads)
    rows = [server.step() for _ in range(server.step_count, steps // 2 if stops else steps)]
    if stops:
        server.save(stops)
    server.stop()
    return {"rows": rows, "said": said, "weights": digest(server)}


def digest(trainer: Trainer) -> str:
    return hashlib.sha256(flat(trainer).numpy().tobytes()).hexdigest()


def synchronous(steps: int) -> str:
    """The same batches in one process."""
    trainer = Trainer(build(SHAPE, seed=3), OptimizerConfig(lr=0.01), constant(steps))
    for step in range(steps):
        trainer.step(sequences(step), next_token_loss)
    return digest(trainer)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    peers = join(4, seed=1)
    store, rank = peers.store, peers.rank

    def keep(name: str, found: object) -> None:
        (folder / f"{name}-{rank}.json").write_text(json.dumps(found))

    def apart(name: str) -> dist.Store:
        return dist.PrefixStore(name, store)

    keep("alone", alone())
    keep("averaged", averaged_sgd(peers))
    keep("diloco", diloco(peers, folder / f"diloco-{rank}"))
    keep("common", common(peers, folder / f"common-{rank}"))
    seeded = {"arrivals": "seeded", "staleness": 1}
    for name, config in {
        "seeded": AsyncConfig(workers=3, **seeded),
        "again": AsyncConfig(workers=3, **seeded),
        "damped": AsyncConfig(workers=3, damp=True, **seeded),
        "other": AsyncConfig(workers=3, seed=1, **seeded),
        "lockstep": AsyncConfig(workers=3, staleness=0),
    }.items():
        keep(name, asynchronous(apart(name), rank, 4, config, 20))
    unbounded = AsyncConfig(workers=3, staleness=None)
    keep("first", asynchronous(apart("first"), rank, 4, unbounded, 20, torch.bfloat16, stops=folder / "server"))
    keep("second", asynchronous(apart("second"), rank, 4, unbounded, 20, torch.bfloat16, loads=folder / "server"))
    keep("one", asynchronous(apart(f"one-{rank // 2}"), rank % 2, 2, AsyncConfig(workers=1), 6))
    keep("synchronous", synchronous(6))
    keep("islands", islands(peers))
    keep("death", asynchronous(apart("death"), rank, 4, AsyncConfig(workers=3, staleness=1), 20, dies_at=4))
    peers = Peers(apart("end"), rank, 3)
    replicas = Peers(apart("replicas"), rank - 1, 2) if rank else None
    if rank == 0:
        server = ParameterServer(build(SHAPE, seed=3), PLAIN, constant(20), peers, AsyncConfig())
        for _ in range(3):
            server.step()
        os._exit(0)
    try:
        Worker(build(SHAPE, seed=3), PLAIN, constant(20)).work(peers, sequences, next_token_loss)
    except UserError as e:
        keep("end", str(e))
    if rank == 2:
        os._exit(0)
    try:
        replicas.mean(torch.zeros(4))
    except UserError as e:
        keep("replica", str(e))
