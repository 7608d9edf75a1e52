"""headwater-model, the training engine, which has to be installed beside this package.

It is on no package index, so it cannot be a dependency; every module that needs it imports it from here, and its
absence is one line for the user. What all training stages do with it in the same way stands here too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from .chat_format import ChatFormat
from .config import Optimization

try:
    from headwater_model import checkpoint, forward, generation, guidance, pretrained, runtime, tree
    from headwater_model.config import OptimizerConfig, ScheduleConfig
    from headwater_model.gpt import GPT
    from headwater_model.pretrained import Loaded
    from headwater_model.trainer import Trainer, next_token_loss
except ModuleNotFoundError as e:
    if e.name is None or not e.name.startswith("headwater_model"):
        raise
    raise UserError(
        "headwater-model is needed to train or run a model; install it beside this: pip install ./packages/model"
    ) from None

__all__ = [
    "GPT",
    "Loaded",
    "Trainer",
    "checkpoint",
    "forward",
    "generation",
    "guidance",
    "next_token_loss",
    "pretrained",
    "runtime",
    "tree",
]


def make_trainer(model: GPT, optimization: Optimization, steps: int) -> Trainer:
    """A trainer of `model` with AdamW and its schedule over `steps` steps."""
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


def export(out: Path, loaded: Loaded, trainer: Trainer, chat: ChatFormat, head: Literal["lm", "scalar"]) -> None:
    """Write the trained model as a Hugging Face folder whose generation ends at the end of a turn."""
    pretrained.save(out, trainer.module, loaded.config, loaded.folder, head)
    path = out / "generation_config.json"
    write_atomic(path, canonical_json({**json.loads(path.read_text()), "eos_token_id": chat.stops}))
