"""Megatron's optimisers with fp32 masters: AdamW for all, or Muon for the hidden matrices and AdamW for the rest.

Megatron's own Muon needs a package that has no release. Here torch's stands in Megatron's shell instead, so clipping,
masters, schedules and distributed checkpoints are the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core import parallel_state
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from torch import Tensor

from ._contracts.errors import UserError
from .config import OptimizerConfig


def build(model: torch.nn.Module, config: OptimizerConfig, floor: float, dtype: torch.dtype) -> MegatronOptimizer:
    """The optimiser of `model`.

    Args:
        model: wrapped by Megatron's DistributedDataParallel.
        floor: last learning rate as a fraction of the peak.
        dtype: of the parameters; masters are float32.

    Raises:
        UserError: Muon with split matrices, whose shards can't be made orthogonal one by one.
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
    )
    if config.kind == "adamw":
        return _adamw(megatron, model)
    if parallel_state.get_tensor_model_parallel_world_size() > 1:
        raise UserError("optimizer.kind muon works on whole matrices: set parallel.tensor 1, or optimizer.kind adamw")
    matrices = {id(weight) for name, weight in model.named_parameters() if is_hidden_matrix(name, weight)}
    with _frozen(p for p in model.parameters() if id(p) not in matrices):
        shell = _adamw(megatron, model)
    with _frozen(p for p in model.parameters() if id(p) in matrices):
        rest = _adamw(megatron, model)
    for part in shell.chained_optimizers:
        _put_muon_into(part, config)
    return ChainedOptimizer([*shell.chained_optimizers, *rest.chained_optimizers])


def is_hidden_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon takes a weight: the matrices between embedding and output."""
    return weight.dim() == 2 and not any(part in name for part in ("embedding", "output_layer"))


def _adamw(config: MegatronOptimizerConfig, model: torch.nn.Module) -> ChainedOptimizer:
    built = get_megatron_optimizer(config, [model], use_gloo_process_groups=False)
    for group in built.param_groups:
        group["fused"], group["foreach"] = True, False  # torch's fused AdamW: one kernel a tensor
    return built if isinstance(built, ChainedOptimizer) else ChainedOptimizer([built])


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
    shell.init_state_fn = _empty_momentum


def _empty_momentum(muon: torch.optim.Optimizer, config: Any = None) -> None:
    """The state that a checkpoint is read into."""
    for group in muon.param_groups:
        for weight in group["params"]:
            if not muon.state[weight]:
                muon.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


@contextmanager
def _frozen(weights: Iterator[Tensor]) -> Iterator[None]:
    """Megatron's builder takes what wants a gradient: hide the others from it."""
    hidden = [weight for weight in weights if weight.requires_grad]
    for weight in hidden:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in hidden:
            weight.requires_grad = True
