"""Megatron's optimisers with fp32 masters, and any kind inside: AdamW, Adafactor, Lion, Muon, SGD.

Megatron drives AdamW. For another kind, torch's or a kept package's optimiser is put in AdamW's place in the same
shell, so masters, clipping, groups and distributed checkpoints are one for all. Who drives which weight is said
in `parameter_groups`; the learning rate is set before each step (`set_lr`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core import parallel_state
from megatron.core.optimizer import ChainedOptimizer, ParamKey, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer.optimizer_config import ParamWithNamePredicate
from torch import Tensor, nn

from ._contracts.errors import UserError
from .config import OptimizerConfig
from .parameter_groups import Group, place


def build(
    chunks: Sequence[nn.Module], config: OptimizerConfig, dtype: torch.dtype, zero: bool = False
) -> ChainedOptimizer:
    """The optimiser of a model, or of this rank's part of it.

    Args:
        chunks: the model, wrapped by Megatron's DistributedDataParallel.
        dtype: of the parameters; masters are float32.
        zero: data and context ranks share the state (ZeRO-1, arXiv:1910.02054, section 5.1): Megatron's distributed
            optimiser.

    Raises:
        UserError: Muon or Adafactor with matrices split by tensor or by ZeRO ranks, whose parts can't be treated one
            by one; Lion without its package.
    """
    if config.kind in ("muon", "adafactor") and (zero or parallel_state.get_tensor_model_parallel_world_size() > 1):
        cut = "zero 0" if zero else "tensor 1"
        raise UserError(
            f"optimizer.kind {config.kind} works on whole matrices: set parallel.{cut}, or optimizer.kind adamw"
        )
    megatron = MegatronOptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        clip_grad=config.clip,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=zero,
    )
    placed: dict[int, Group] = {}
    for chunk in chunks:
        groups = place(chunk, config)
        placed.update({id(weight): groups[name] for name, weight in chunk.named_parameters() if name in groups})
    shells = []
    for kind in ("muon", "adamw") if config.kind == "muon" else (config.kind,):
        others = (w for c in chunks for w in c.parameters() if id(w) in placed and placed[id(w)].optimizer != kind)
        with _frozen(others):
            built = get_megatron_optimizer(
                megatron, list(chunks), config_overrides=_overrides(placed), use_gloo_process_groups=False
            )
        for shell in built.chained_optimizers if isinstance(built, ChainedOptimizer) else [built]:
            if shell.optimizer is not None:
                _put(kind, shell, config)
            shells.append(shell)
    optimizer = ChainedOptimizer(shells)
    configure(optimizer, config)
    return optimizer


def set_lr(optimizer: ChainedOptimizer, lr: float) -> None:
    """Set the learning rate of the next step, each group's at its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]


def configure(optimizer: ChainedOptimizer, config: OptimizerConfig) -> None:
    """Give a built optimiser of the same kind and groups the settings of `config`; state stays."""
    for shell in optimizer.chained_optimizers:
        shell.config.clip_grad = config.clip
        settings = _settings(kind_of(shell), config)
        for group in shell.param_groups:
            group.update(settings, weight_decay=config.weight_decay * group["wd_mult"])


def kind_of(shell: Any) -> str:
    """Which kind a shell drives."""
    name = type(shell.optimizer).__name__.lower()
    return name if name in ("adafactor", "lion", "muon", "sgd") else "adamw"


def fill(kind: str, inner: torch.optim.Optimizer) -> None:
    """Give every weight the state of one that has had no step, where it has none: a checkpoint is whole at any time."""
    for group in inner.param_groups:
        for weight in group["params"]:
            for name, value in _empty_state(kind, weight, group).items():
                inner.state[weight].setdefault(name, value)


def _empty_state(kind: str, weight: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    step = torch.zeros((), device=weight.device if kind == "adamw" else None)  # where the fused kernel wants it
    if kind == "adamw":
        return {"step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
    if kind == "adafactor" and weight.dim() < 2:
        return {"step": step, "variance": torch.zeros_like(weight)}
    if kind == "adafactor":
        return {"step": step, "row_var": torch.zeros_like(weight[:, :1]), "col_var": torch.zeros_like(weight[:1])}
    if kind == "sgd" and not group["momentum"]:
        return {}
    return {"exp_avg" if kind == "lion" else "momentum_buffer": torch.zeros_like(weight)}


def _settings(kind: str, config: OptimizerConfig) -> dict[str, Any]:
    """A kind's settings, as its optimiser's groups name them."""
    chosen = config.settings
    if kind == "adafactor":
        return {"beta2_decay": -chosen["decay_power"]}
    if kind in ("muon", "sgd"):
        return {name: chosen[name] for name in ("momentum", "nesterov")}
    betas = {"betas": (chosen["beta1"], chosen["beta2"])}
    return betas if kind == "lion" else {**betas, "eps": chosen["eps"]}


def _put(kind: str, shell: Any, config: OptimizerConfig) -> None:
    """Put an optimiser of `kind` in the place of the AdamW that `shell` drives, on the same groups.

    Muon's update is scaled to the root mean square that AdamW's has (Liu et al. 2025, arXiv:2502.16982, section
    2.2), so one learning rate serves both. SGD's weight decay is added to the gradient, the others' is decoupled
    (Loshchilov and Hutter, arXiv:1711.05101).
    """
    adamw = shell.optimizer
    if kind == "adamw":
        for group in adamw.param_groups:
            group["fused"], group["foreach"] = True, False  # torch's fused AdamW: one kernel a tensor
    else:
        groups = [{k: v for k, v in group.items() if k not in adamw.defaults} for group in adamw.param_groups]
        leaves = [{**group, "params": [w.detach() for w in group["params"]]} for group in groups]
        shell.optimizer = _class(kind)(leaves, lr=config.lr, **_settings(kind, config))
        for group, given in zip(shell.optimizer.param_groups, groups, strict=True):
            group["params"] = given["params"]  # ZeRO's shares are views, which torch's constructors refuse
    fill(kind, shell.optimizer)


def _class(kind: str) -> Any:
    if kind == "lion":
        try:
            from lion_pytorch import Lion
        except ModuleNotFoundError:
            raise UserError("optimizer.kind lion needs a package: pip install lion-pytorch") from None
        return Lion
    muon = partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    classes: dict[str, Any] = {"adafactor": torch.optim.Adafactor, "muon": muon, "sgd": torch.optim.SGD}
    return classes[kind]


def _overrides(placed: dict[int, Group]) -> dict[ParamKey, Any]:
    """`parameter_groups` in Megatron's terms."""

    def key(group: Group) -> ParamKey:
        matches = ParamWithNamePredicate(str(group), lambda weight, _: placed.get(id(weight)) == group)
        return ParamKey(with_name_predicate=matches)

    return {key(g): {"wd_mult": g.decay_scale, "lr_mult": g.lr_scale} for g in dict.fromkeys(placed.values())}


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
