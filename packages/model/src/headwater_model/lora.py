"""LoRA: low-rank adapters beside the frozen matrices of a decoder (Hu et al., arXiv:2106.09685).

    attach(model, LoraConfig(rank=16), seed=1)      the base is frozen; B is zero, so nothing has changed yet
    trainer = Trainer(model, ...)                   trains the adapters, and a scalar head
    merge(model)                                    W + alpha / rank B A, and the adapters are gone

A layer y = W x becomes y = W x + s B (A x), A [rank, inputs] and B [outputs, rank]. Under tensor parallelism B is cut
as the outputs of a column-parallel W are, and A as the inputs of a row-parallel W; the other of the two is on every
rank. What is summed over the ranks is `rank` numbers a position: the gradient of A x in a column-parallel layer, A x
itself in a row-parallel one. Under sequence parallelism these sums are scattered over the positions, and the uncut
matrix sees a part of the positions on each rank, as a norm does: Megatron sums its gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    get_cuda_rng_tracker,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn

from . import products
from .gpt import GPT
from .initialise import draw, fill
from .lora_config import LoraConfig, Target

__all__ = ["LoraConfig", "attach", "detached", "effective", "merge", "weights"]

LAYERS: dict[str, Target] = {
    "linear_qkv": "qkv",
    "linear_proj": "attention_out",
    "linear_fc1": "mlp_in",
    "linear_fc2": "mlp_out",
}
A, B = "lora_a", "lora_b"


class Adapted(nn.Module):
    """What a linear layer with an adapter has beside Megatron's."""

    weight: nn.Parameter
    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scale: float
    dropout: float
    gated = False
    """Whether the outputs are the two halves of a gated MLP, each of which is cut over the ranks."""
    whole: str
    """Which of the two matrices every tensor-parallel rank has."""
    axis: int
    """Of the other one: along which it is cut."""
    active = True

    def low(self, x: Tensor, forked: bool) -> Tensor:
        """s A x: [positions, batch, inputs of this rank] -> [positions, batch, rank].

        Args:
            forked: tensor-parallel ranks hold different inputs, and drop different ones.
        """
        if self.dropout and self.training:
            with get_cuda_rng_tracker().fork() if forked else contextlib.nullcontext():
                x = F.dropout(x, self.dropout)
        return F.linear(x, self.lora_a) * self.scale

    def add(self, y: Tensor, low: Tensor) -> Tensor:
        """y + B low, for y [positions, batch, outputs], or [positions, outputs] of an expert."""
        return _Added.apply(y, low, self.lora_b)  # type: ignore[return-value]


class _Added(torch.autograd.Function):
    """y + low B^T, for y [..., outputs], low [..., rank], B [outputs, rank].

    torch's own gradient of B is a product with `rank` columns, which MKL makes 2 to 25 times more slowly than the same
    with `rank` rows (2,048 positions, 1,024 outputs, rank 16 and 4).
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, low: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(low, b)
        return products.matmul(low.flatten(0, -2), b.t()).view_as(y).add_(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, b = ctx.saved_tensors
        flat = g.flatten(0, -2)
        return g, products.matmul(flat, b).view_as(low), (low.flatten(0, -2).t() @ flat).t()


class Column(Adapted, ColumnParallelLinear):
    """Outputs cut over the tensor-parallel ranks: B is, A is whole."""

    whole, axis = A, 0

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Megatron's."""
        out, bias = ColumnParallelLinear.forward(self, input_, weight, runtime_gather_output)
        if not self.active:
            return out, bias
        if self.sequence_parallel:
            low = self.low(input_, forked=False)  # the whole layer runs in the fork already
            low = gather_from_sequence_parallel_region(low, tensor_parallel_output_grad=True, group=self.tp_group)
        else:
            low = copy_to_tensor_model_parallel_region(self.low(input_, forked=False), group=self.tp_group)
        return self.add(out, low), bias

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None) -> dict:
        """Megatron's, with B cut as the weight is."""
        found = _sharded(self, prefix, {"weight": 0, "bias": 0, B: 0}, sharded_offsets, metadata)
        if self.gated:  # of the weight Megatron's MLP takes care
            found[prefix + B] = apply_swiglu_sharded_factory(found[prefix + B], sharded_offsets)
        return found


class Row(Adapted, RowParallelLinear):
    """Inputs cut over the tensor-parallel ranks: A is, B is whole."""

    whole, axis = B, 1

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        """Megatron's."""
        out, bias = RowParallelLinear.forward(self, input_)
        if not self.active:
            return out, bias
        low = self.low(input_, forked=not self.sequence_parallel)
        if self.sequence_parallel:
            low = reduce_scatter_to_sequence_parallel_region(low, group=self.tp_group)
        else:
            low = reduce_from_tensor_model_parallel_region(low, group=self.tp_group)
        return self.add(out, low), bias

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None) -> dict:
        """Megatron's, with A cut as the weight is."""
        return _sharded(self, prefix, {"weight": 1, A: 1}, sharded_offsets, metadata)


def attach(model: GPT | Sequence[GPT], config: LoraConfig, seed: int = 0) -> None:
    """Freeze a model, or this rank's chunks of one, and give its linear layers adapters; call it before `Trainer`.

    A is drawn by `seed` and its global name, so every layout begins alike: Gaussian (section 4.1) with the standard
    deviation of the authors' code, 1/sqrt(3 inputs). B is zero. A scalar head goes on learning in full.

    Raises:
        ValueError: the model has adapters already.
    """
    for chunk in [model] if isinstance(model, GPT) else model:
        if chunk.lora is not None:
            raise ValueError("the model has adapters already; merge them first")
        chunk.requires_grad_(False)
        if chunk.head == "scalar" and chunk.post_process:
            chunk.output_layer.requires_grad_(True)
        for name, layer in chunk.decoder.named_modules():
            if LAYERS.get(name.rpartition(".")[2]) in config.targets:
                _adapt(layer, config)
                layer.gated = layer.config.gated_linear_unit and name.endswith("linear_fc1")
        fill(chunk, lambda *weight: draw(seed, *weight) * (3 * weight[-1][-1]) ** -0.5, ending=A)
        chunk.lora = config
        if chunk.pre_process and chunk.config.recompute_granularity == "full":
            # A layer that is computed again passes on no gradient unless its input wants one.
            chunk.embedding.register_forward_hook(_wants_gradient)


def effective(layer: nn.Module) -> Tensor:
    """The matrix that a linear layer multiplies by, this rank's part, in the weight's type: W + alpha / rank B A."""
    if not isinstance(layer, Adapted) or not layer.active:
        return layer.weight  # type: ignore[return-value]
    with torch.no_grad():
        update = layer.lora_b.float() @ layer.lora_a.float()
        return torch.add(layer.weight.float(), update, alpha=layer.scale).to(layer.weight.dtype)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter as the model without adapters that computes the same would name and hold it; detached."""
    merged = {f"{name}.weight": effective(layer) for name, layer in _adapted(model)}
    return {name: merged.get(name, model.get_parameter(name)).detach() for name in base_names(model)}


def base_names(module: nn.Module) -> list[str]:
    """Names of all parameters but the adapters'."""
    return [name for name, _ in module.named_parameters() if not name.endswith((A, B))]


def merge(model: GPT) -> None:
    """Put the adapters into the matrices, in place and without communication; all of the model may learn again.

    The sum is made in float32 and rounded to the weights' type: where that is bfloat16, small updates get lost, which
    exporting from float32 avoids. A `Trainer` of the model is of no more use.
    """
    for _, layer in list(_adapted(model)):
        layer.weight.data = effective(layer)
        layer.__class__ = ColumnParallelLinear if isinstance(layer, Column) else RowParallelLinear
        del layer.lora_a, layer.lora_b
    model.lora = None
    model.requires_grad_(True)


@contextlib.contextmanager
def detached(model: GPT) -> Iterator[None]:
    """A block in which the model is what it was before `attach`: the reference of PPO and DPO without a second model.

    A scalar head is not what it was, if it has learned.
    """
    layers = [layer for _, layer in _adapted(model)]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.active = True


def _adapt(layer: nn.Module, config: LoraConfig) -> None:
    outputs, inputs = layer.weight.shape
    layer.__class__ = Column if isinstance(layer, ColumnParallelLinear) else Row
    layer.scale, layer.dropout = config.scale, config.dropout
    for name, shape in ((A, (config.rank, inputs)), (B, (outputs, config.rank))):
        weight = nn.Parameter(layer.weight.new_zeros(shape))
        if name != layer.whole:
            set_tensor_model_parallel_attributes(weight, True, layer.axis, 1)
        elif layer.sequence_parallel:
            weight.sequence_parallel = True
        layer.register_parameter(name, weight)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, Adapted))


def _sharded(layer: nn.Module, prefix: str, axes: dict[str, int], offsets: tuple, metadata: dict | None) -> dict:
    state = layer.state_dict(prefix="", keep_vars=True)
    groups = {"tp_group": layer.tp_group, "dp_cp_group": (metadata or {})["dp_cp_group"]}
    return make_sharded_tensors_for_checkpoint(state, prefix, axes, offsets, **groups)


def _wants_gradient(_: nn.Module, __: tuple, out: Tensor) -> None:
    if torch.is_grad_enabled() and not out.requires_grad:
        out.requires_grad_()
