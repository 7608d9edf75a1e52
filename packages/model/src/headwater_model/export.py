"""The export stage: a Megatron checkpoint and its tokenizer in, a Hugging Face folder out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, runtime
from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import ExportConfig, ModelConfig
from .final_state import STATE
from .model import build
from .pretrain import FINAL
from .pretrained import TYPES, Loaded, read_tokenizer, save


def run(stage: Run) -> None:
    """Entry point of the stage."""
    config: ExportConfig = stage.config
    runtime.initialize()
    loaded, head = _load(stage.inputs["checkpoint"], stage.inputs["tokenizer"])
    loaded.model.to(TYPES[config.precision])
    architecture = save(stage.out, loaded.model, loaded.config, stage.inputs["tokenizer"], head)
    known = "" if not architecture.startswith("Headwater") else ", which Headwater alone reads"
    stage.log(f"written as {architecture}{known}")
    stage.write_metrics(
        {"parameters": loaded.config.parameters, "bytes": (stage.out / "model.safetensors").stat().st_size}
    )


def load_checkpoint(folder: Path, tokenizer: Path, dtype: torch.dtype = torch.float32) -> Loaded[Any]:
    """The language model of a checkpoint artefact, as `pretrained.load` gives that of an export.

    Call `runtime.initialize` first.

    Args:
        tokenizer: folder of the tokenizer that made the training tokens.
        dtype: of the parameters in memory, whatever the checkpoint's.

    Raises:
        UserError: no checkpoint there, one of a scalar model, or no tokenizer that fits.
    """
    loaded, head = _load(folder, tokenizer)
    if head != "lm":
        raise UserError(f"{folder}: a scalar model has no language-model head; name the model it was made from")
    loaded.model.to(dtype)
    return loaded


def _load(folder: Path, tokenizer: Path) -> tuple[Loaded[Any], Any]:
    try:
        state = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{folder / 'run.json'}: not readable ({e}); name a checkpoint artefact") from None
    config = ModelConfig(**state["model"])
    words = read_tokenizer(tokenizer)
    if words.get_vocab_size() > config.vocab:
        raise UserError(f"{tokenizer}: {words.get_vocab_size()} ids, but the model has {config.vocab}; "
                        "name the tokenizer that made the training tokens")  # fmt: skip
    model = build(config, state["head"], TYPES[state["precision"]], seed=0)
    read = checkpoint.read(folder / FINAL / STATE, {"model": model.sharded_state_dict()})
    model.load_state_dict(read["model"])
    return Loaded(model, config, words, tokenizer), state["head"]
