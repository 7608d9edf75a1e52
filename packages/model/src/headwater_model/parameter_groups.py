"""Which weight is driven by which optimiser, with which share of the learning rate and of the weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import headwater_model.cpu as cpu  # noqa: F401

from megatron.core.utils import get_model_config
from torch import Tensor, nn

from . import width_transfer
from .config import OptimizerConfig


@dataclass(frozen=True, order=True)
class Group:
    """Weights that are treated alike."""

    optimizer: str
    """Kind; under "muon" also "adamw", for what is no hidden matrix."""
    lr_scale: float
    """Multiplies the learning rate."""
    decay_scale: float
    """Multiplies the weight decay; 0: does not decay."""


def place(model: nn.Module, config: OptimizerConfig) -> dict[str, Group]:
    """The group of every weight of this rank's part of a model that wants a gradient, by name.

    Vectors (norms, biases) do not decay, nor do input tables without `config.decay_embeddings`; tables, vectors
    and the output are AdamW's where Muon has the matrices (Jordan et al., kellerjordan.github.io/posts/muon).
    """
    transfer, tied = config.width_transfer, width_transfer.is_tied(model)
    hidden = get_model_config(model).hidden_size
    found = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        kind = "adamw" if config.kind == "muon" and not is_hidden_matrix(name, weight) else config.kind
        role = width_transfer.role(name, weight, tied)
        scale = width_transfer.lr_scale(kind, role, hidden, transfer.base) if transfer else 1.0
        decays = weight.dim() > 1 and (config.decay_embeddings or not width_transfer.is_table(name, tied))
        found[name] = Group(kind, scale, 1 / scale if decays else 0.0)
    return found


def is_hidden_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon takes a weight: the matrices between the input tables and the output."""
    return weight.dim() == 2 and width_transfer.role(name, weight, tied=False) == "hidden"


def table(chunks: Sequence[nn.Module], config: OptimizerConfig) -> str:
    """Every group of this rank's model chunks as a Markdown table: what it gets, how many weights, their names."""
    groups: dict[Group, list[tuple[str, Tensor]]] = {}
    for chunk in chunks:
        weights = dict(chunk.named_parameters())
        for name, group in place(chunk, config).items():
            groups.setdefault(group, []).append((name, weights[name]))
    rows = ["| optimiser | learning rate | weight decay | weights | in |", "| --- | ---: | ---: | ---: | --- |"]
    for group, members in sorted(groups.items(), key=lambda item: item[0]):
        count = sum(weight.numel() for _, weight in members)
        lr, decay = config.lr * group.lr_scale, config.weight_decay * group.decay_scale
        names = ", ".join(f"`{name}`" for name in _short(name for name, _ in members))
        rows.append(f"| {group.optimizer} | {lr:.3g} | {decay:.3g} | {count:,} | {names} |")
    return "\n".join(rows)


def _short(names: Iterable[str]) -> list[str]:
    """Names without wrappers, one for all layers, in the model's order."""
    parts = ([p for p in name.split(".") if p != "module"] for name in names)
    return list(dict.fromkeys(".".join("*" if p.isdigit() else p for p in name) for name in parts))
