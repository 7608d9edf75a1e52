"""What travels between a worker and the parameter server: flat tensors on the host, in the order of the parameters.

worker -> server   push, float64 [3]: batch (or HELLO, or STOP), loss, count; then the gradient, float32 [parameters]
server -> worker   order, int64: batch (or STOP); then the weights, [parameters] in the model's type
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SERVER = 0
"""Rank of the server among the peers."""
HELLO, STOP = -1, -2
"""In the place of a batch: "I am here, give me one", and "enough"."""


def push(batch: int, loss: float = 0.0, count: float = 0.0) -> Tensor:
    """The head of a worker's message."""
    return torch.tensor([batch, loss, count], dtype=torch.float64)


def weights(model: nn.Module) -> Tensor:
    """A copy of all weights."""
    return torch.cat([p.detach().reshape(-1).cpu() for p in model.parameters()])


@torch.no_grad()
def set_weights(model: nn.Module, flat: Tensor) -> None:
    """Put `weights` back."""
    for parameter, values in _parts(model, flat):
        parameter.copy_(values)


def gradient(model: nn.Module) -> Tensor:
    """A copy of the gradients in Megatron's buffers."""
    return torch.cat([p.main_grad.reshape(-1).cpu() for p in model.parameters()])


def set_gradient(model: nn.Module, flat: Tensor) -> None:
    """Put a `gradient` into Megatron's buffers, for its optimiser to find."""
    for parameter, values in _parts(model, flat):
        parameter.main_grad.copy_(values)


def _parts(model: nn.Module, flat: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    parameters = list(model.parameters())
    cut = flat.split([p.numel() for p in parameters])
    return [(p, values.view_as(p)) for p, values in zip(parameters, cut, strict=True)]
