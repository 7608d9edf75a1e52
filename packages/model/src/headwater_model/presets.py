"""Published models by name: `presets.yaml` read into ModelConfig, and the command that shows the table."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json
from .model_config import ModelConfig
from .planning.tables import percent, short, table

TABLE = Path(__file__).with_name("presets.yaml")


@dataclass(frozen=True)
class Preset:
    """A published model."""

    fields: dict[str, Any]
    """Of ModelConfig, vocabulary and context as published among them."""
    parameters: float
    """As the source states them."""
    tolerance: float
    """How far the count may be from it, as a fraction: sources round, some to a single digit."""
    source: str


@cache
def presets() -> dict[str, Preset]:
    """Name -> preset, in the order of the file."""
    found = {}
    for family in yaml.safe_load(TABLE.read_text()).values():
        for name, model in family["models"].items():
            own = {k: v for k, v in model.items() if k not in ("parameters", "tolerance", "source")}
            found[name] = Preset(
                {**family["shared"], **own},
                float(model["parameters"]),
                float(model.get("tolerance", family["tolerance"])),
                model.get("source", family["source"]),
            )
    return found


def find(name: str) -> Preset:
    """One preset.

    Raises:
        UserError: none has this name.
    """
    if name not in presets():
        near = difflib.get_close_matches(name, presets(), n=1, cutoff=0.0)
        raise UserError(f"no preset {name}; did you mean {near[0]}? `headwater-model presets` lists them")
    return presets()[name]


def load(name: str) -> ModelConfig:
    """The model as published, its vocabulary and context too.

    Raises:
        UserError: none has this name.
    """
    return ModelConfig(**find(name).fields)


def fields(name: str) -> dict[str, Any]:
    """What a plan pins: all fields but the vocabulary, which the tokenizer gives, and the context, which the plan does.

    Raises:
        UserError: none has this name.
    """
    return {field: value for field, value in find(name).fields.items() if field not in ("vocab", "context")}


def run(args: argparse.Namespace) -> None:
    """Entry point of the command."""
    if args.json:
        found = {name: {**vars(preset), "counted": load(name).parameters} for name, preset in presets().items()}
        print(canonical_json(found), end="")
        return
    rows = []
    for name, preset in presets().items():
        model = load(name)
        rows.append([
            name, model.layers, model.hidden, model.heads, model.key_value_heads, model.ffn_width, model.vocab,
            model.context, f"{model.parameters:,}", short(preset.parameters, 4),
            percent(model.parameters / preset.parameters - 1),
        ])  # fmt: skip
    heads = ["preset", "layers", "hidden", "heads", "kv", "ffn", "vocab", "context", "parameters", "published", "off"]
    print(table(heads, rows))
    print("\nheadwater-model plan ... --set preset=NAME pins a shape; --set model.layers=4 changes a field of it")
