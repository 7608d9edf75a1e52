"""Weights of one model under two names and in two layouts, each pair told once for both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model_config import ModelConfig


@dataclass(frozen=True)
class Pair:
    """One weight of Megatron's model (as one rank has it), and the weights of the other side that hold the same."""

    ours: str
    theirs: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]] = lambda whole: (whole,)
    """Ours -> theirs."""
    join: Callable[[Sequence[Tensor]], Tensor] = lambda parts: parts[0]
    """Theirs -> ours; the inverse of `split`."""


def linear(ours: str, theirs: str, bias: bool) -> list[Pair]:
    """A linear layer [out, in] that both sides keep alike."""
    return [Pair(f"{ours}.{part}", (f"{theirs}.{part}",)) for part in _parts(bias)]


def norm(ours: str, theirs: str, config: ModelConfig) -> list[Pair]:
    """A norm."""
    return linear(ours, theirs, config.norm == "layernorm")


def transposed(ours: str, theirs: str) -> list[Pair]:
    """A linear layer with bias that the other side keeps as [in, out] (GPT-2's Conv1D)."""
    return [_turned(pair) for pair in linear(ours, theirs, bias=True)]


def gate_and_up(ours: str, gate: str, up: str, bias: bool) -> list[Pair]:
    """The two halves of a gated MLP's first matrix."""
    return [
        Pair(f"{ours}.{part}", (f"{gate}.{part}", f"{up}.{part}"), lambda whole: whole.chunk(2), torch.cat)
        for part in _parts(bias)
    ]


def query_key_value(ours: str, theirs: Sequence[str], config: ModelConfig, bias: bool) -> list[Pair]:
    """Projections that the other side keeps apart, named query, key, value in `theirs`.

    Megatron keeps them by key/value group: its queries, its key, its value. Rotary halves are the same in both.
    """
    groups, per, width = config.key_value_heads, config.heads // config.key_value_heads, config.head_width

    def split(whole: Tensor) -> list[Tensor]:
        grouped = whole.view(groups, per + 2, width, *whole.shape[1:])
        return [p.flatten(0, 2) for p in grouped.split([per, 1, 1], 1)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        heads = (part.view(groups, -1, width, *part.shape[1:]) for part in parts)
        return torch.cat(list(heads), 1).flatten(0, 2)

    return [Pair(f"{ours}.{part}", tuple(f"{t}.{part}" for t in theirs), split, join) for part in _parts(bias)]


def stacked_query_key_value(ours: str, theirs: str, config: ModelConfig) -> list[Pair]:
    """Projections with biases that the other side keeps in one matrix [in, queries then keys then values] (GPT-2)."""
    found = []
    for apart in query_key_value(ours, ["query", "key", "value"], config, bias=True):
        name = f"{theirs}.{apart.ours.rpartition('.')[2]}"
        one = Pair(
            apart.ours,
            (name,),
            lambda whole, apart=apart: (torch.cat(list(apart.split(whole))),),  # type: ignore[misc]
            lambda parts, apart=apart: apart.join(parts[0].chunk(3)),  # type: ignore[misc]
        )
        found.append(_turned(one))
    return found


def shifted(ours: str, theirs: str, rows: int) -> Pair:
    """A table that begins with `rows` unused rows on the other side."""
    return Pair(ours, (theirs,), lambda whole: (torch.cat([whole.new_zeros(rows, whole.size(1)), whole]),),
                lambda parts: parts[0][rows:])  # fmt: skip


def output(head: str, config: ModelConfig, theirs: str) -> list[Pair]:
    """The head: output embeddings under `theirs` unless they are tied, or one row of scores."""
    if head == "lm" and config.tie_embeddings:
        return []
    return [Pair("output_layer.weight", ("score.weight" if head == "scalar" else theirs,))]


def _turned(pair: Pair) -> Pair:
    return Pair(
        pair.ours,
        pair.theirs,
        lambda whole: [part.t() for part in pair.split(whole)],
        lambda parts: pair.join([part.t() for part in parts]),
    )


def _parts(bias: bool) -> tuple[str, ...]:
    return ("weight", "bias") if bias else ("weight",)
