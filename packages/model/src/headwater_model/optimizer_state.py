"""What an optimiser remembers of each weight, saved in the weight's own shape, whatever the layout.

Megatron's optimisers save one state in three forms, of which none can be read as another. Here masters and moments
lie in the checkpoint under the weight's name, cut as the weight is cut, so that a run goes on under any layout, with
ZeRO or without. Learning rate, decay and the like are not saved: they are the config's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.utils import extract_sharded_tensors_and_factories
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

MASTER = "master"
"""The name under which float32 copies of weights of another type are saved, beside the names of the states."""


@dataclass(frozen=True)
class Slot:
    """Where an optimiser keeps what it knows of one weight, or of this rank's share of it."""

    shell: Any
    """Megatron's optimiser."""
    master: Tensor | None
    """What is updated: the weight itself, its float32 copy, or a share of one; None: the share is empty."""
    share: slice | None = None
    """This rank's part of the flat weight under ZeRO; None: all of it."""

    @property
    def state(self) -> dict[str, Tensor]:
        """Moments and the like, by name."""
        return {} if self.master is None else self.shell.optimizer.state[self.master]


def sharded(optimizer: ChainedOptimizer, weights: Any, loading: bool = False) -> dict[str, Any]:
    """The state for Megatron's distributed checkpoints; collective. The optimiser has its state from the start.

    Args:
        weights: sharded state dict of the model, or of all its chunks.
        loading: make room for what is to be loaded instead of collecting what is there. ZeRO ranks then hold all
            states of their weights for a moment; when saving, each holds the weights' that it writes.
    """
    names = {id(shell): _names(shell) for shell in optimizer.chained_optimizers}
    found: dict[str, Any] = {}
    for number, (weight, slot) in enumerate(_trained(optimizer, weights)):
        whole = {}
        for name in names[id(slot.shell)]:
            value = slot.state.get(name)
            if value is not None or slot.share is not None:
                whole[name] = _whole(name, weight, slot, value, number, loading)
        if weight.data.dtype != torch.float32:
            whole[MASTER] = _whole(MASTER, weight, slot, slot.master, number, loading)
        found[str(number)] = whole
    return {"weights": found, "steps": [_step(shell) for shell in optimizer.chained_optimizers]}


def load(optimizer: ChainedOptimizer, weights: Any, loaded: dict[str, Any]) -> None:
    """Take over what a checkpoint filled into the answer of `sharded(..., loading=True)`."""
    for number, (_, slot) in enumerate(_trained(optimizer, weights)):
        for name, whole in loaded["weights"][str(number)].items():
            target = slot.master if name == MASTER else slot.state.get(name)
            if target is not None:
                value = whole if slot.share is None else whole.flatten()[slot.share]
                target.data.copy_(value.view_as(target))
    for shell, step in zip(optimizer.chained_optimizers, loaded["steps"], strict=True):
        _set_step(shell, step)


def slots(optimizer: ChainedOptimizer) -> dict[int, Slot]:
    """By the id of each weight of the model that is trained."""
    found: dict[int, Slot] = {}
    for shell in optimizer.chained_optimizers:
        if isinstance(shell, DistributedOptimizer):
            found.update(_zero_slots(shell))
            continue
        pairs = zip(getattr(shell, "float16_groups", []), getattr(shell, "fp32_from_float16_groups", []), strict=True)
        models = {id(copy): weight for weights, copies in pairs for weight, copy in zip(weights, copies, strict=True)}
        for master in shell.get_parameters():
            found[id(models.get(id(master), master))] = Slot(shell, master)
    return found


def _trained(optimizer: ChainedOptimizer, weights: Any) -> Iterator[tuple[ShardedTensor | ShardedTensorFactory, Slot]]:
    """Every weight that is trained, in the same order on all ranks that hold it."""
    found = slots(optimizer)
    for weight in nested_values(extract_sharded_tensors_and_factories(weights)[0]):
        if id(weight.data) in found:
            yield weight, found[id(weight.data)]


def _zero_slots(shell: DistributedOptimizer) -> dict[int, Slot]:
    found = {}
    for buffer in shell.buffers:
        for weight in buffer.param_index_map:
            if weight not in shell.model_param_group_index_map:
                found[id(weight)] = Slot(shell, None, slice(0, 0))
                continue
            group, place = shell.model_param_group_index_map[weight]
            held = shell._get_model_param_range_map(weight)["param"]
            master = shell.optimizer.param_groups[group]["params"][place]
            found[id(weight)] = Slot(shell, master, slice(held.start, held.end))
    return found


def _whole(
    name: str,
    weight: ShardedTensor | ShardedTensorFactory,
    slot: Slot,
    value: Tensor | None,
    number: int,
    loading: bool,
) -> ShardedTensor | ShardedTensorFactory:
    """A state in the weight's shape and place; under ZeRO the shares of all ranks meet on one, in turn."""
    if slot.share is None:
        assert value is not None
        return _like(name, weight, value, weight.replica_id)
    group = slot.shell.data_parallel_group
    writer = number % group.size()
    if loading:
        whole = torch.empty(weight.data.shape, device=cpu.DEVICE)
    else:
        flat = torch.zeros(weight.data.numel(), device=cpu.DEVICE)
        if value is not None:
            flat[slot.share] = value.detach().flatten()
        if flat.numel() == 1:
            dist.all_reduce(flat, group=group)  # nothing is saved by a stand-in
        else:
            dist.reduce(flat, dist.get_global_rank(group, writer), group=group)
            if group.rank() != writer:
                flat = flat.new_zeros(1).expand(flat.shape)  # a stand-in: a shape to check, never written
        whole = flat.view(weight.data.shape)
    *others, _ = weight.replica_id  # the last says which of the data and context ranks' copies it is
    return _like(name, weight, whole, (*others, (group.rank() - writer) % group.size()))


def _like(
    name: str, weight: ShardedTensor | ShardedTensorFactory, value: Tensor, replica: Any
) -> ShardedTensor | ShardedTensorFactory:
    key = f"optimizer.{name}.{weight.key}"
    if value.shape != weight.data.shape:
        return _factor(key, weight, value, replica)
    if isinstance(weight, ShardedTensorFactory):
        return replace(weight, key=key, data=value, replica_id=replica)
    return replace(weight, key=key, data=value, dtype=value.dtype, replica_id=replica)


def is_stand_in(value: Tensor) -> bool:
    """Whether a rank has a state's shape only: another one of its data ranks has, and writes, what is in it."""
    return value.untyped_storage().nbytes() < value.numel() * value.element_size()


def _factor(key: str, weight: ShardedTensor | ShardedTensorFactory, value: Tensor, replica: Any) -> ShardedTensor:
    """A row or a column that Adafactor keeps of a whole matrix, at the matrix' place among the layers."""
    like = weight.build()[0] if isinstance(weight, ShardedTensorFactory) else weight
    lead = like.prepend_axis_num
    layers = [(axis, like.global_offset[axis], like.global_shape[axis]) for axis in range(lead)]
    return ShardedTensor.from_rank_offsets(key, value, *layers, replica_id=replica, prepend_axis_num=lead)


def _names(shell: Any) -> list[str]:
    """Names of the states that are tensors, the same on all ranks: some hold a share of no weight."""
    held = {n for state in shell.optimizer.state.values() for n, value in state.items() if value.dim()}
    if not isinstance(shell, DistributedOptimizer):
        return sorted(held)
    of_all: list[set[str]] = [set()] * shell.data_parallel_group.size()
    dist.all_gather_object(of_all, held, group=shell.data_parallel_group)
    return sorted(set().union(*of_all))


def _step(shell: Any) -> float | None:
    """How many updates the optimiser has made, where it counts them: a weight (torch) or a group (TE, Apex)."""
    counts = [state["step"] for state in shell.optimizer.state.values() if "step" in state]
    counts += [group["step"] for group in shell.optimizer.param_groups if "step" in group]
    return float(counts[0]) if counts else None


def _set_step(shell: Any, step: float | None) -> None:
    if step is None:
        return
    for state in shell.optimizer.state.values():
        if "step" in state:
            state["step"].fill_(step)
    for group in shell.optimizer.param_groups:
        if "step" in group:  # Transformer Engine's and Apex's
            group["step"] = int(step)
