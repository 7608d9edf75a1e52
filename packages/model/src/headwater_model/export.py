"""The export stage: a Megatron checkpoint and its tokenizer in, a Hugging Face folder out."""

from __future__ import annotations

import json

from . import checkpoint, runtime
from ._contracts.stage import Run
from .config import ExportConfig, ModelConfig
from .final_state import STATE
from .model import build
from .pretrain import FINAL
from .pretrained import TYPES, save


def run(stage: Run) -> None:
    """Entry point of the stage."""
    config: ExportConfig = stage.config
    state = json.loads((stage.inputs["checkpoint"] / "run.json").read_text())
    runtime.initialize()
    model_config = ModelConfig(**state["model"])
    model = build(model_config, state["head"], TYPES[state["precision"]], seed=0)
    loaded = checkpoint.read(stage.inputs["checkpoint"] / FINAL / STATE, {"model": model.sharded_state_dict()})
    model.load_state_dict(loaded["model"])
    model.to(TYPES[config.precision])
    architecture = save(stage.out, model, model_config, stage.inputs["tokenizer"], state["head"])
    known = "" if not architecture.startswith("Headwater") else ", which Headwater alone reads"
    stage.log(f"written as {architecture}{known}")
    stage.write_metrics(
        {"parameters": model_config.parameters, "bytes": (stage.out / "model.safetensors").stat().st_size}
    )
