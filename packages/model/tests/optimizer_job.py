"""What each of two ranks does for test_optimizer_ranks.py: every kind under its layouts, the kind changed on the way.

ranks.py calls it with a folder: `KIND-start/` there is a checkpoint of one rank without a step; writes found.json.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from headwater_model import gpt, runtime
from headwater_model.config import ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from headwater_model.trainer import Trainer, next_token_loss

SHAPE = ModelConfig(layers=2, hidden=32, heads=2, vocab=64, context=16)
SCHEDULE = ScheduleConfig(kind="inverse_sqrt", unit="tokens", warmup=64, steps=1000)
LAYOUTS = {
    "pipeline": ParallelConfig(pipeline=2),
    "tensor": ParallelConfig(tensor=2),
    "data": ParallelConfig(data=2),
    "zero": ParallelConfig(data=2, zero=1),
}
RATES = {"adamw": 0.01, "adafactor": 0.1, "lion": 0.003, "muon": 0.01, "sgd": 0.3}
NEXT = {"adamw": "muon", "muon": "adamw", "lion": "sgd", "sgd": "lion", "adafactor": "lion"}
CASES = [(kind, "pipeline") for kind in RATES]
CASES += [(kind, "data") for kind in ("muon", "adafactor")]
CASES += [
    (kind, layout) for kind in ("lion", "sgd") for layout in ("tensor", "zero")
]  # others need whole matrices, or become one that does


def config(kind: str) -> OptimizerConfig:
    return OptimizerConfig(kind=kind, lr=RATES[kind], decay_embeddings=False, width_transfer={"base": 16})


def trainer(kind: str) -> Trainer:
    return Trainer(gpt.build_chunks(SHAPE, seed=5), config(kind), SCHEDULE)


def batch(step: int, rank: int = 0, ranks: int = 1) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(SHAPE.vocab, (4, 17), generator=torch.Generator().manual_seed(step))
    rows = ids[rank * 4 // ranks : (rank + 1) * 4 // ranks]
    return [{"tokens": rows[:, :-1].contiguous(), "labels": rows[:, 1:].contiguous()}]


def run(one: Trainer, kind: str, rank: int = 0, ranks: int = 1) -> list[list[float]]:
    """Three steps, the kind changed before the last; loss, gradient norm and learning rate of each."""
    found = []
    for step in range(3):
        if step == 2:
            one.change_optimizer(config(NEXT[kind]))
        row = one.step(batch(step, rank, ranks), next_token_loss)
        found.append([row["loss"], row["grad_norm"], row["lr"]])
    return found


def main(folder: Path) -> None:
    found = {}
    runtime.initialize(LAYOUTS["data"], seed=1)
    for kind, layout in CASES:
        runtime.change_layout(LAYOUTS[layout])
        one = trainer(kind)
        one.load(folder / f"{kind}-start")
        ranks, rank = LAYOUTS[layout].data, parallel_state.get_data_parallel_rank()
        found[f"{kind}-{layout}"] = run(one, kind, rank, ranks)
        one.save(folder / f"{kind}-{layout}")
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()
    runtime.shutdown()
