"""Adapters in the form of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors, beside a base model.

    PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(BASE), FOLDER)

What is one matrix here and several there (queries, keys and values; gate and up) has one A here: each part gets that A
and its rows of B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from .._contracts import manifest as artefacts
from .._contracts.errors import UserError
from ..gpt import GPT
from ..lora import Adapted
from ..model_config import ModelConfig
from .registry import family_for

FAMILIES = ("llama", "qwen2")


def save_adapter(folder: Path, model: GPT, config: ModelConfig, base: str) -> None:
    """Write the adapters of `model` (one rank, the whole model) into `folder`, made if need be; a scalar head too.

    Args:
        base: folder or name of the model that the adapters were attached to, as PEFT is to find it.

    Raises:
        UserError: no adapters, or a shape that is written as neither Llama nor Qwen 2.
    """
    lora, family = model.lora, family_for(config)
    if lora is None:
        raise UserError("the model has no adapters to write; attach them before training")
    if family.model_type not in FAMILIES or family.pairs is None:
        raise UserError(f"adapters are written for {' and '.join(FAMILIES)}, not for {family.model_type}: merge them")
    weights: dict[str, Tensor] = {}
    pairs = {pair.ours: pair for pair in family.pairs(config, model.head)}
    for name, layer in model.named_modules():
        if isinstance(layer, Adapted):
            pair = pairs[f"{name}.weight"]
            for theirs, rows in zip(pair.theirs, pair.split(layer.lora_b.detach().cpu()), strict=True):
                module = f"base_model.model.{theirs.removesuffix('.weight')}"
                weights[f"{module}.lora_A.weight"] = layer.lora_a.detach().cpu().clone()
                weights[f"{module}.lora_B.weight"] = rows.clone()
    modules = sorted({name.split(".")[-3] for name in weights})
    about: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if model.head == "lm" else "SEQ_CLS",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": modules,
        "bias": "none",
        "inference_mode": True,
    }
    if model.head == "scalar":
        weights["base_model.model.score.weight"] = model.output_layer.weight.detach().cpu()
        about["modules_to_save"] = ["score"]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    artefacts.write_atomic(folder / "adapter_config.json", artefacts.canonical_json(about))
