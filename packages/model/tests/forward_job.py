"""What each of four ranks does for test_relay.py, under one layout after another.

ranks.py calls it with a folder: `lora-0/` there is a checkpoint of one rank without a step; found.json is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import layouts_job
import torch
import torch.distributed as dist

from headwater_model import checkpoint, forward, generation, gpt, lora, runtime
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from headwater_model.lora import LoraConfig
from headwater_model.trainer import Trainer, next_token_loss

SHAPE = layouts_job.SHAPE
LORA = LoraConfig(rank=4, alpha=8.0)
ARCHITECTURES = {
    "rotary positions": {},
    "learned positions, layer norm, biases, one table": {
        "position": "learned", "norm": "layernorm", "activation": "gelu_tanh", "biases": True, "tie_embeddings": True,
    },
    "linear biases, 2 key heads": {"position": "alibi", "kv_heads": 2},
}  # fmt: skip
FORWARD = {
    name: ParallelConfig(**fields)
    for name, fields in {
        "tensor 2, data 2": {"tensor": 2, "data": 2},
        "tensor 2, data 2, sequence": {"tensor": 2, "data": 2, "sequence": True},
        "pipeline 2, data 2": {"pipeline": 2, "data": 2},
        "pipeline 4": {"pipeline": 4},
        "tensor 2, pipeline 2": {"tensor": 2, "pipeline": 2},
        "tensor 2, pipeline 2, sequence": {"tensor": 2, "pipeline": 2, "sequence": True},
    }.items()
}
REFUSED = {
    "chunks": ParallelConfig(pipeline=2, chunks=2, data=2),
    "context": ParallelConfig(context=2, pipeline=2),
}  # fmt: skip
TRAINED = {
    name: ParallelConfig(**fields)
    for name, fields in {
        "tensor 4": {"tensor": 4},
        "tensor 2, pipeline 2": {"tensor": 2, "pipeline": 2},
        "tensor 2, data 2, sequence, ZeRO": {"tensor": 2, "data": 2, "sequence": True, "zero": 1},
        "pipeline 2, data 2, ZeRO, recompute full": {"pipeline": 2, "data": 2, "zero": 1, "recompute": "full"},
        "tensor 2, pipeline 2 x 2 chunks, sequence": {"tensor": 2, "pipeline": 2, "chunks": 2, "sequence": True},
    }.items()
}


def trainer(dtype: torch.dtype = torch.float32, dropout: float = 0.0, **fields: Any) -> Trainer:
    """Of adapters on the small model."""
    shape = ModelConfig(**{**SHAPE.model_dump(), **fields})
    chunks = gpt.build_chunks(shape, dtype=dtype, seed=5)
    lora.attach(chunks, LoraConfig(**{**LORA.model_dump(), "dropout": dropout}), seed=7)
    return Trainer(chunks, OptimizerConfig(lr=0.02), ScheduleConfig(kind="linear", warmup=1, steps=40))


def turn(folder: Path, number: int) -> dict[str, list[float]]:
    """Of a fresh model's two steps, and of step `number` of the run that all layouts take turns at."""
    one = trainer()
    rows = [one.step(layouts_job.mine(step), next_token_loss) for step in range(2)]
    bf16 = trainer(torch.bfloat16)
    rows += [bf16.step(layouts_job.mine(step), next_token_loss) for step in range(2)]
    one.load(folder / f"lora-{number}")
    rows.append(one.step(layouts_job.mine(number), next_token_loss))
    one.save(folder / f"lora-{number + 1}")
    apart = one.evaluate(layouts_job.mine(layouts_job.HELD_OUT), next_token_loss)["loss"]
    for chunk in one.chunks:
        lora.merge(chunk)
    checkpoint.write(folder / f"merged-{number}", one.weights())
    merged = one.evaluate(layouts_job.mine(layouts_job.HELD_OUT), next_token_loss)["loss"]
    return {name: [row[name] for row in rows] for name in ("loss", "grad_norm")} | {"merged": [apart, merged]}


def tried(layout: ParallelConfig) -> list[str]:
    """Which architectures a layout runs: those that split most run all."""
    return list(ARCHITECTURES) if layout.data == 1 and not layout.sequence else list(ARCHITECTURES)[:1]


def scored(**fields: Any) -> dict[str, Any]:
    """What the forward passes and generation say."""
    shape = ModelConfig(**{**SHAPE.model_dump(), **fields})
    model = gpt.build(shape, seed=5).eval()
    tokens = torch.randint(shape.vocab, (3, 13), generator=torch.Generator().manual_seed(1))
    padding = torch.arange(13) < torch.tensor([[0], [4], [7]])
    prompts = [row[: 5 + 2 * number].tolist() for number, row in enumerate(tokens)]
    with torch.no_grad():
        logprobs, (again, greedy) = forward.token_logprobs(model, tokens, padding), forward.token_scores(model, tokens)
        found = {"logits": forward.logits(model, tokens, padding), "logprobs": logprobs, "scores": again}
        found |= {"values": forward.values(values(shape), tokens, padding)}
    settings: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0},
        "stops": {"temperature": 0, "stop_ids": range(0, 64, 3)},
        "seed": {"seed": 3, "top_p": 0.9},
        "seeds": {"seeds": [4, 5, 6], "top_k": 20},
    }
    written = {name: generation.generate(model, prompts, 9, **given) for name, given in settings.items()}
    ids = {name: [one.tokens for one in rows] for name, rows in written.items()}
    found["generated"] = torch.tensor([p for rows in written.values() for one in rows for p in one.logprobs])
    learn = forward.token_logprobs(model, tokens)
    return {name: numbers.tolist() for name, numbers in found.items()} | {
        "ids": ids, "flags": greedy.tolist(), "differentiable": learn.requires_grad,
    }  # fmt: skip


def values(shape: ModelConfig) -> gpt.GPT:
    """A model whose scalar head is not zero."""
    model = gpt.build(shape, "scalar", seed=5).eval()
    if model.post_process:
        with torch.no_grad():
            model.output_layer.weight.copy_(torch.linspace(-1, 1, shape.hidden)[None])
    return model


def refusal() -> str:
    """How scoring under the layout at hand is refused."""
    model = gpt.build_chunks(SHAPE, seed=5)[0]
    try:
        forward.token_logprobs(model, torch.zeros(1, 8, dtype=torch.int64))
    except UserError as e:
        return str(e)
    return ""


def main(folder: Path) -> None:
    found: dict[str, Any] = {"forward": {}, "lora": {}, "refused": {}}
    runtime.initialize(next(iter(FORWARD.values())), seed=5)
    for title, layout in FORWARD.items():
        runtime.change_layout(layout, seed=5)
        found["forward"][title] = {name: scored(**ARCHITECTURES[name]) for name in tried(layout)}
    for title, layout in REFUSED.items():
        runtime.change_layout(layout, seed=5)
        found["refused"][title] = refusal()
    for number, (title, layout) in enumerate(TRAINED.items()):
        runtime.change_layout(layout, seed=5)
        found["lora"][title] = turn(folder, number)
    of_all: list[Any] = [None] * 4
    dist.all_gather_object(of_all, found)
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(of_all))
    runtime.shutdown()
