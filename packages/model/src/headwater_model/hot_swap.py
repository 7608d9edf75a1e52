"""One optimiser in the place of another in the middle of a run: masters to the bit, moments where both have them."""

from __future__ import annotations

from collections.abc import Sequence

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core.optimizer import ChainedOptimizer
from torch import Tensor, nn

from . import optimizer as optimizers
from .config import OptimizerConfig
from .optimizer_state import Slot, slots
from .parameter_groups import place

FIRST_MOMENT = {"adamw": "exp_avg", "lion": "exp_avg", "muon": "momentum_buffer", "sgd": "momentum_buffer"}


def swap(
    old: ChainedOptimizer,
    chunks: Sequence[nn.Module],
    before: OptimizerConfig,
    after: OptimizerConfig,
    dtype: torch.dtype,
    zero: bool = False,
) -> tuple[ChainedOptimizer, str]:
    """The optimiser that goes on for `old`, and what it kept, in a line.

    Where kind and groups stay, `old` itself with the settings of `after`. Otherwise a new one, with the masters of
    the old; and of its moments: all, for weights that stay with their kind; the mean of the gradients, for Lion,
    Muon and SGD, which go on from it alone (SGD sums where the others average: scaled). AdamW and Adafactor start
    afresh, their step count too: a mean without its mean square would be divided by nearly nothing.

    Args:
        chunks: the model, wrapped by Megatron's DistributedDataParallel.
        before, after: what `old` was built with, and what is wanted.
        dtype, zero: as `optimizer.build` takes them.

    Raises:
        UserError: this layout can't have the new kind.
    """
    if after.kind == before.kind and all(place(chunk, before) == place(chunk, after) for chunk in chunks):
        optimizers.configure(old, after)
        for shell in old.chained_optimizers:
            if after.kind == "sgd" and not after.settings["momentum"]:
                shell.optimizer.state.clear()
            optimizers.fill(optimizers.kind_of(shell), shell.optimizer)  # SGD that had no momentum
        return old, f"optimizer {after.kind}: settings changed; masters and moments kept"
    new = optimizers.build(chunks, after, dtype, zero)
    sources, targets = slots(old), slots(new)
    for key, target in targets.items():
        if target.master is not None and (master := sources[key].master) is not None:
            target.master.data.copy_(master.data)
    kept = []
    for shell in new.chained_optimizers:
        mine = [(sources[key], target) for key, target in targets.items() if target.shell is shell]
        kept.append(f"{optimizers.kind_of(shell)}: {_move(mine, optimizers.kind_of(shell), before, after)}")
    return new, f"optimizer {before.kind} to {after.kind}: masters kept; {', '.join(kept)}"


def _move(pairs: list[tuple[Slot, Slot]], kind: str, before: OptimizerConfig, after: OptimizerConfig) -> str:
    """Take into a new shell what its weights' old shells know; of all of its weights or none, since they share a step
    count. Answers what was taken."""
    kinds = {optimizers.kind_of(source.shell) for source, _ in pairs}
    if kinds == {kind}:
        for source, target in pairs:
            target.state.update({name: value.clone() for name, value in source.state.items()})
        return "moments kept"
    if kind in ("lion", "muon", "sgd") and kinds <= set(FIRST_MOMENT):
        for source, target in pairs:
            target.state.update(_first_moment(source, before, kind, after))
        return f"first moment kept from {' and '.join(sorted(kinds))}"
    return "moments fresh"


def _first_moment(source: Slot, before: OptimizerConfig, kind: str, after: OptimizerConfig) -> dict[str, Tensor]:
    from_kind = optimizers.kind_of(source.shell)
    found = source.state.get(FIRST_MOMENT[from_kind])
    if found is None or (kind == "sgd" and not after.settings["momentum"]):
        return {}
    scale = 1.0
    if from_kind == "sgd":
        scale *= 1 - before.settings["momentum"]
    if kind == "sgd":
        scale /= 1 - after.settings["momentum"]
    return {FIRST_MOMENT[kind]: found * scale}
