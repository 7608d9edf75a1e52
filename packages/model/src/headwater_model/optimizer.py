"""Megatron's optimisers with fp32 masters: AdamW for all, or Muon for the hidden matrices and AdamW for the rest.

Megatron's own Muon needs a package that has no release. Here torch's stands in Megatron's shell instead, so clipping,
masters, schedules and distributed checkpoints are the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core import parallel_state
from megatron.core.optimizer import ChainedOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from torch import Tensor

from ._contracts.errors import UserError
from .config import OptimizerConfig


def build(
    chunks: Sequence[torch.nn.Module], config: OptimizerConfig, floor: float, dtype: torch.dtype, zero: bool = False
) -> ChainedOptimizer:
    """The optimiser of a model, or of this rank's part of it.

    Args:
        chunks: the model, wrapped by Megatron's DistributedDataParallel.
        floor: last learning rate as a fraction of the peak.
        dtype: of the parameters; masters are float32.
        zero: data and context ranks share the state (ZeRO-1, arXiv:1910.02054, section 5.1): Megatron's distributed
            optimiser.

    Raises:
        UserError: Muon with matrices split by tensor or by ZeRO ranks, whose parts can't be made orthogonal one by
            one.
    """
    megatron = MegatronOptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        min_lr=config.lr * floor,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.eps,
        weight_decay=config.weight_decay,
        clip_grad=config.clip,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=zero,
    )
    if config.kind == "adamw":
        return _adamw(megatron, chunks)
    if parallel_state.get_tensor_model_parallel_world_size() > 1:
        raise UserError("optimizer.kind muon works on whole matrices: set parallel.tensor 1, or optimizer.kind adamw")
    if zero:
        raise UserError("optimizer.kind muon works on whole matrices: set parallel.zero 0, or optimizer.kind adamw")
    named = [item for chunk in chunks for item in chunk.named_parameters()]
    matrices = {id(weight) for name, weight in named if is_hidden_matrix(name, weight)}
    with _frozen(weight for _, weight in named if id(weight) not in matrices):
        shell = _adamw(megatron, chunks)
    with _frozen(weight for _, weight in named if id(weight) in matrices):
        rest = _adamw(megatron, chunks)
    for part in shell.chained_optimizers:
        _put_muon_into(part, config)
    return ChainedOptimizer([*shell.chained_optimizers, *rest.chained_optimizers])


def is_hidden_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon takes a weight: the matrices between embedding and output."""
    return weight.dim() == 2 and not any(part in name for part in ("embedding", "output_layer"))


def _adamw(config: MegatronOptimizerConfig, chunks: Sequence[torch.nn.Module]) -> ChainedOptimizer:
    built = get_megatron_optimizer(config, list(chunks), use_gloo_process_groups=False)
    shells = built.chained_optimizers if isinstance(built, ChainedOptimizer) else [built]
    for shell in shells:
        for group in shell.param_groups:
            group["fused"], group["foreach"] = True, False  # torch's fused AdamW: one kernel a tensor
        _fill(shell.optimizer, {"exp_avg", "exp_avg_sq"}, counts=True)
    return ChainedOptimizer(shells)


def _put_muon_into(shell: Any, config: OptimizerConfig) -> None:
    """Put torch's Muon in the place of the AdamW that `shell` drives.

    Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon. An update is scaled to the root mean square that
    AdamW's has (Liu et al. 2025, arXiv:2502.16982, section 2.2), so one learning rate serves both.
    """
    adamw = shell.optimizer
    groups = [{k: v for k, v in group.items() if k not in adamw.defaults} for group in adamw.param_groups]
    shell.optimizer = torch.optim.Muon(
        groups, lr=config.lr, weight_decay=config.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    _fill(shell.optimizer, {"momentum_buffer"}, counts=False)


def _fill(inner: torch.optim.Optimizer, names: set[str], counts: bool) -> None:
    """Give every weight the state of one that has had no update, so that a checkpoint is whole at any time."""
    for group in inner.param_groups:
        for weight in group["params"]:
            inner.state[weight].update({name: torch.zeros_like(weight) for name in names})
            if counts:
                inner.state[weight]["step"] = torch.zeros((), device=weight.device)  # where the fused kernel wants it


@contextmanager
def _frozen(weights: Iterable[Tensor]) -> Iterator[None]:
    """Megatron's builder takes what wants a gradient: hide the others from it."""
    hidden = [weight for weight in weights if weight.requires_grad]
    for weight in hidden:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in hidden:
            weight.requires_grad = True
