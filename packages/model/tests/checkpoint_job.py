"""What test_checkpoint.py runs on two ranks: data-parallel ranks share the writing, another layout reads it; a disk
that is full for one rank fails the checkpoint for both; ZeRO's shares of the optimiser's state come back as they were.
"""

from __future__ import annotations

import sys
from pathlib import Path

import headwater_model.cpu  # noqa: F401

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from test_checkpoint import full_disk

from headwater_model import checkpoint, launch, runtime
from headwater_model._contracts.config import resolved
from headwater_model.config import (
    CheckpointConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
)
from headwater_model.gpt import build
from headwater_model.saver import Saver
from headwater_model.trainer import Trainer, next_token_loss

SHAPE = ModelConfig(layers=2, hidden=64, heads=4, kv_heads=2, vocab=512, context=32)
IDS = torch.randint(512, (4, 17), generator=torch.Generator().manual_seed(1))


def trainer(layout: ParallelConfig) -> Trainer:
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    runtime.initialize(layout, seed=1)
    return Trainer(build(SHAPE, torch.float32, seed=3), OptimizerConfig(lr=0.01), ScheduleConfig(steps=100))


def step(of: Trainer, rows: slice) -> float:
    ids = IDS[rows]
    batch = {"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}
    return of.step([batch], next_token_loss)["loss"]


def main(folder: Path | None) -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    one = trainer(ParallelConfig(data=2))
    rank = dist.get_rank()
    mine = slice(2 * rank, 2 * rank + 2)
    step(one, mine)
    events: list[dict] = []
    saver = Saver(root, CheckpointConfig(), events.append, resolved(SHAPE))
    saver.save(1, one.state)
    after = [step(one, mine) for _ in range(2)]
    saver.wait()
    written = {path.name: path.stat().st_size for path in (root / "step-00000001").glob("*.distcp")}
    assert set(written) == {"__0_0.distcp", "__1_0.distcp"}, written
    assert max(written.values()) < 1.5 * min(written.values()), written

    if rank == 1:
        with full_disk():
            saver.save(2, one.state)
            saver.wait()
    else:
        saver.save(2, one.state)
        saver.wait()
    assert saver.steps() == [1] and not list(root.glob(".step*"))
    assert rank or (events[-1]["what"] == "checkpoint failed" and "rank 1" in events[-1]["why"]), events

    two = trainer(ParallelConfig(tensor=2))
    found = checkpoint.newest_good(root, print)
    assert found is not None
    two.load(found)
    again = [step(two, slice(None)) for _ in range(2)]
    assert all(abs(a - b) < 1e-5 for a, b in zip(after, again, strict=True)), (after, again)

    zero = trainer(ParallelConfig(data=2, zero=1))
    step(zero, mine)
    saver = Saver(root.with_name("zero"), CheckpointConfig(), events.append, resolved(SHAPE))
    saver.save(1, zero.state)  # a rank has its share of the moments: no other may write what it lacks
    after = [step(zero, mine) for _ in range(3)]
    saver.wait()
    resumed = trainer(ParallelConfig(data=2, zero=1))
    resumed.load(checkpoint.place(saver.root, 1))
    assert [step(resumed, mine) for _ in range(3)] == after
    runtime.shutdown()


if __name__ == "__main__":
    sys.exit(launch.as_rank(main))
