"""What each of four ranks does for test_layouts.py: train under one layout after another, in one set of processes.

ranks.py calls it with a folder: `TYPE-0/` there is a checkpoint of one rank without a step; found.json is written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from headwater_model import gpt, runtime
from headwater_model.config import ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from headwater_model.trainer import Trainer, next_token_loss

SHAPE = ModelConfig(layers=4, hidden=32, heads=4, vocab=64, context=32)
BATCH = 4
HELD_OUT = 99
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = {
    name: ParallelConfig(**fields)
    for name, fields in {
        "data 4": {"data": 4},
        "tensor 4": {"tensor": 4},
        "pipeline 4": {"pipeline": 4},
        "context 4": {"context": 4},
        "data 4, ZeRO": {"data": 4, "zero": 1},
        "tensor 4, sequence": {"tensor": 4, "sequence": True},
        "pipeline 2 x 2 chunks, data 2": {"pipeline": 2, "chunks": 2, "data": 2},
        "context 2, data 2, ZeRO": {"context": 2, "data": 2, "zero": 1},
        "tensor 2, pipeline 2": {"tensor": 2, "pipeline": 2},
        "tensor 2, data 2, sequence, ZeRO": {"tensor": 2, "data": 2, "sequence": True, "zero": 1},
        "context 2, pipeline 2 x 2 chunks": {"context": 2, "pipeline": 2, "chunks": 2},
        "pipeline 2, data 2, ZeRO, recompute full": {"pipeline": 2, "data": 2, "zero": 1, "recompute": "full"},
        "tensor 2, context 2, sequence, recompute selective": {
            "tensor": 2, "context": 2, "sequence": True, "recompute": "selective",
        },
        "tensor 2, pipeline 2 x 2 chunks, sequence": {"tensor": 2, "pipeline": 2, "chunks": 2, "sequence": True},
        "pipeline 2 x 2 chunks, data 2, ZeRO, overlap": {
            "pipeline": 2, "chunks": 2, "data": 2, "zero": 1, "overlap_grad_reduce": True, "overlap_param_gather": True,
        },
    }.items()
}  # fmt: skip

IN_TYPE = {
    "float32": list(LAYOUTS),
    "bfloat16": [
        "tensor 4",
        "pipeline 2 x 2 chunks, data 2",
        "context 2, data 2, ZeRO",
        "tensor 2, data 2, sequence, ZeRO",
        "pipeline 2, data 2, ZeRO, recompute full",
        "tensor 2, context 2, sequence, recompute selective",
    ],
}

ARCHITECTURES = {
    "learned positions, layer norm, biases, one table": {
        "position": "learned", "norm": "layernorm", "activation": "gelu_tanh", "biases": True, "tie_embeddings": True,
    },
    "linear biases, parallel residual, 2 key heads": {"position": "alibi", "parallel_residual": True, "kv_heads": 2},
    "experts": {"experts": 4},
}  # fmt: skip
TRIED = {
    "tensor 2, context 2, sequence, recompute selective": list(ARCHITECTURES)[:2],
    "pipeline 2 x 2 chunks, data 2, ZeRO, overlap": list(ARCHITECTURES),
    "context 4": ["experts"],
}


def trainer(dtype: torch.dtype = torch.float32, **fields: Any) -> Trainer:
    """Of the small model, or of another with these fields."""
    shape = ModelConfig(**{**SHAPE.model_dump(), **fields})
    schedule = ScheduleConfig(kind="linear", warmup=1, steps=40)
    return Trainer(gpt.build_chunks(shape, dtype=dtype, seed=5), OptimizerConfig(lr=0.01), schedule)


def batch(step: int, rank: int = 0, ranks: int = 1) -> list[dict[str, torch.Tensor]]:
    """A data rank's micro-batches of a row each, of packed rows of which some labels don't count."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(SHAPE.vocab, (BATCH, SHAPE.context + 1), generator=generator)
    mask = (torch.rand(BATCH, SHAPE.context, generator=generator) < 0.7).float()
    segments = (torch.rand(BATCH, SHAPE.context, generator=generator) < 0.1).cumsum(1)
    rows = range(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    whole = {"tokens": ids[:, :-1], "labels": ids[:, 1:], "loss_mask": mask, "attention_mask": segments}
    return [{name: entry[row : row + 1].contiguous() for name, entry in whole.items()} for row in rows]


def mine(step: int) -> list[dict[str, torch.Tensor]]:
    """This data rank's micro-batches."""
    return batch(step, parallel_state.get_data_parallel_rank(), runtime.layout().data)


def turn(folder: Path, number: int, name: str) -> dict[str, list[float]]:
    """Losses and gradient norms under the layout at hand: of a fresh model's first step, and of step `number` of the
    run that all layouts take turns at, each from the checkpoint of the one before; a held-out loss."""
    one = trainer(TYPES[name])
    rows = [one.step(mine(0), next_token_loss)]
    one.load(folder / f"{name}-{number}")
    rows.append(one.step(mine(number), next_token_loss))
    assert one.step_count == number + 1
    one.save(folder / f"{name}-{number + 1}")
    # An odd number of micro-batches: the interleaved schedule takes them in pairs.
    heldout = one.evaluate(mine(HELD_OUT)[:1], next_token_loss)["loss"]
    return {"loss": [*(row["loss"] for row in rows), heldout], "grad_norm": [row["grad_norm"] for row in rows]}


def architecture(name: str) -> dict[str, list[float]]:
    """Losses and gradient norms of two steps, and a held-out loss."""
    one = trainer(**ARCHITECTURES[name])
    rows = [one.step(mine(step), next_token_loss) for step in range(2)]
    heldout = one.evaluate(mine(HELD_OUT), next_token_loss)["loss"]
    return {"loss": [*(row["loss"] for row in rows), heldout], "grad_norm": [row["grad_norm"] for row in rows]}


def dropout(folder: Path, recompute: str) -> dict[str, Any]:
    """Two steps with dropout; the second again after loading; the largest difference between the norms' weights that
    tensor-parallel ranks hold in common."""
    runtime.change_layout(ParallelConfig(tensor=2, sequence=True, data=2, recompute=recompute), seed=5)
    one = trainer(dropout=0.2, attention_dropout=0.1)
    first = one.step(mine(0), next_token_loss)["loss"]
    one.save(folder / f"dropout-{recompute}")
    second = one.step(mine(0), next_token_loss)["loss"]
    one.load(folder / f"dropout-{recompute}")
    again = one.step(mine(0), next_token_loss)["loss"]
    apart = 0.0
    for name, weight in one.module.named_parameters():
        if "norm" in name:
            theirs = weight.detach().clone()
            group = parallel_state.get_tensor_model_parallel_group()
            dist.broadcast(theirs, dist.get_global_rank(group, 0), group=group)
            apart = max(apart, float((theirs - weight.detach()).abs().max()))
    return {"loss": [first, second], "again": again, "apart": apart}


def main(folder: Path) -> None:
    found: dict[str, Any] = {name: {} for name in TYPES}
    runtime.initialize(next(iter(LAYOUTS.values())), seed=5)
    for title, layout in LAYOUTS.items():
        runtime.change_layout(layout, seed=5)
        for name, titles in IN_TYPE.items():
            if title in titles:
                found[name][title] = turn(folder, titles.index(title), name)
        for name in TRIED.get(title, ()):
            found.setdefault(name, {})[title] = architecture(name)
    found["dropout"] = [dropout(folder, recompute) for recompute in ("none", "full", "selective")]
    of_all: list[Any] = [None] * 4
    dist.all_gather_object(of_all, found)
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(of_all))
    runtime.shutdown()
