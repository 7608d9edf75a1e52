"""torch's Adafactor (Shazeer and Stern, arXiv:1804.04235) in Megatron's distributed checkpoints.

Its second moment is kept as a row and a column a matrix, and Megatron saves only states of the weight's own shape.
Here they are saved beside, each under the weight's name, a layer at its place among the layers.
"""

from __future__ import annotations

from itertools import chain
from types import MethodType
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.optimizer import get_param_id_to_sharded_param_map
from torch import Tensor

FACTORS = ("row_var", "col_var")


def empty_state(weight: Tensor) -> dict[str, Tensor]:
    """The state of a weight that has had no step, as torch makes it in its first."""
    step = torch.tensor(0.0)
    if weight.dim() < 2:
        return {"step": step, "variance": torch.zeros_like(weight)}
    rows, columns = weight.new_zeros(*weight.shape[:-1], 1), weight.new_zeros(*weight.shape[:-2], 1, weight.shape[-1])
    return {"step": step, "row_var": rows, "col_var": columns}


def save_factors(shell: Any) -> None:
    """Teach `shell`, a Megatron optimiser that drives Adafactor, to save and load rows and columns."""
    plain = type(shell).sharded_state_dict

    def sharded_state_dict(self: Any, model: Any, is_loading: bool = False, **options: Any) -> Any:
        state = self.optimizer.state
        masters = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        factors = [{name: state[w].pop(name) for name in FACTORS if name in state[w]} for w in masters]
        try:
            found = plain(self, model, **options)
        finally:
            for weight, parts in zip(masters, factors, strict=True):
                state[weight].update(parts)
        weights = chain(*self.float16_groups) if hasattr(self, "float16_groups") else masters
        sharded = get_param_id_to_sharded_param_map(model, weights)
        saved = found.get("optimizer", found)["state"]
        for number, parts in enumerate(factors):
            saved[number].update({name: _sharded(sharded[number], name, value) for name, value in parts.items()})
        return found

    shell.sharded_state_dict = MethodType(sharded_state_dict, shell)


def _sharded(of: ShardedTensor | ShardedTensorFactory, name: str, value: Tensor) -> ShardedTensor:
    like = of.build()[0] if isinstance(of, ShardedTensorFactory) else of
    layers = range(like.prepend_axis_num)
    return ShardedTensor.from_rank_offsets(
        f"optimizer.state.{name}.{of.key}",
        value,
        *((axis, like.global_offset[axis], like.global_shape[axis]) for axis in layers),
        replica_id=of.replica_id,
        prepend_axis_num=like.prepend_axis_num,
    )
