"""headwater-model, the training engine, which has to be installed beside this package.

It is on no package index, so it cannot be a dependency; every module that needs it imports it from here, and its
absence is one line for the user. What all training stages do with it in the same way stands here too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from .chat_format import ChatFormat
from .config import ENGINE, Optimization, TrainingConfig

try:
    import headwater_model.cpu  # noqa: F401  # before torch: Megatron's import wants it

    from headwater_model import (
        checkpoint,
        cpu,
        forward,
        generation,
        guidance,
        launch,
        lora,
        pretrained,
        reranking,
        runtime,
        tree,
    )
    from headwater_model._contracts.config import parse, resolved
    from headwater_model.config import ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig
    from headwater_model.flight_log import Event, FlightLog
    from headwater_model.gpt import GPT, Head
    from headwater_model.loop import Loop, Terminated
    from headwater_model.lora_config import LoraConfig
    from headwater_model.model import build
    from headwater_model.onlooker import Onlooker
    from headwater_model.pretrained import Loaded
    from headwater_model.saver import Saver
    from headwater_model.spikes import Action, Policy
    from headwater_model.steering import Settings
    from headwater_model.trainer import Batch, Loss, Trainer, next_token_loss
except ModuleNotFoundError as e:
    if e.name is None or not e.name.startswith("headwater_model"):
        raise
    raise UserError(
        "headwater-model is needed to train or run a model; install it beside this: pip install ./packages/model"
    ) from None

import torch
import torch.distributed as dist
from megatron.core import parallel_state

__all__ = [
    "GPT",
    "Action",
    "Batch",
    "Event",
    "FlightLog",
    "Head",
    "Loaded",
    "Loop",
    "Loss",
    "Onlooker",
    "Policy",
    "RunConfig",
    "Saver",
    "Settings",
    "Terminated",
    "Trainer",
    "build",
    "checkpoint",
    "cpu",
    "dist",
    "forward",
    "generation",
    "guidance",
    "launch",
    "lora",
    "next_token_loss",
    "parallel_state",
    "pretrained",
    "resolved",
    "reranking",
    "runtime",
    "torch",
    "tree",
]


def settings_of(config: TrainingConfig, section: str) -> RunConfig:
    """What headwater-model needs to know of a run, every value checked.

    Raises:
        UsageError: an unknown key, a wrong value.
        UserError: a layout that these stages can't have.
    """
    values: dict[str, Any] = {
        "seed": config.seed,
        "precision": config.dtype,
        "micro_batch": config.micro_batch,
        "checkpoint_every": config.checkpoint_every,
        "log_every": config.log_every,
        "threads": config.threads,
        **{name: getattr(config, name) for name in ENGINE},
    }
    settings = parse(RunConfig, values, section)
    adapters_of(config, section)
    if settings.parallel.chunks > 1:
        raise UserError(f"{section}.parallel.chunks: the interleaved schedule is for pre-training; set it to 1")
    return settings


def adapters_of(config: TrainingConfig, section: str) -> LoraConfig | None:
    """What the config says of LoRA; None where all weights are trained.

    Raises:
        UsageError: an unknown key, a wrong value.
    """
    return None if config.lora is None else parse(LoraConfig, config.lora, f"{section}.lora")


def check_layout(settings: RunConfig, model: ModelConfig, section: str) -> None:
    """Refuse a layout that does not divide the model.

    Raises:
        UserError: naming what does not divide.
    """
    try:
        settings.parallel.check(model)
    except ValueError as e:
        raise UserError(f"{section}.parallel: {e}") from None


def make_trainer(
    model: GPT, optimization: Optimization, steps: int, adapters: LoraConfig | None = None, seed: int = 0
) -> Trainer:
    """A trainer of `model`, or of `adapters` beside its frozen matrices: AdamW, and its schedule over `steps` steps.

    Args:
        seed: of the adapters.
    """
    if adapters:
        lora.attach(model, adapters, seed)
    warmup = min(round(optimization.warmup * steps), steps - 1)
    return Trainer(
        model,
        OptimizerConfig(
            lr=optimization.lr,
            beta2=optimization.beta2,
            weight_decay=optimization.weight_decay,
            clip=optimization.clip_norm,
        ),
        ScheduleConfig(
            kind=optimization.decay,
            warmup=warmup,
            steps=steps,
            floor=1.0 if optimization.decay == "constant" else optimization.final_lr_fraction,
        ),
    )


def row_limit(asked: int, loaded: Loaded) -> int:
    """Tokens a row: what was asked for, or the model's context.

    Raises:
        UserError: more was asked for than the context holds.
    """
    if asked > loaded.config.context:
        raise UserError(f"max_length {asked} is above the model's context of {loaded.config.context}; lower it")
    return asked or loaded.config.context


def export(out: Path, loaded: Loaded, chat: ChatFormat, head: Head) -> None:
    """Write a model as a Hugging Face folder whose generation ends at the end of a turn."""
    pretrained.save(out, loaded.model, loaded.config, loaded.folder, head)
    path = out / "generation_config.json"
    write_atomic(path, canonical_json({**json.loads(path.read_text()), "eos_token_id": chat.stops}))
