"""From hidden states to the vocabulary, split over tensor-parallel ranks: logits, and losses without all logits."""

from __future__ import annotations

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
)
from torch import Tensor

from ._contracts.sequences import IGNORED
from .loss import linear_cross_entropy


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits of the whole vocabulary on every rank.

    Args:
        hidden: [positions, batch, hidden].
        weight: [vocabulary of this rank, hidden].
        bias: [vocabulary of this rank].

    Returns:
        [batch, positions, vocabulary] in the type of hidden.
    """
    own = F.linear(copy_to_tensor_model_parallel_region(hidden), weight, bias)
    return gather_from_tensor_model_parallel_region(own).transpose(0, 1).contiguous()


def chosen(labels: Tensor) -> Tensor:
    """Where something is asked: places in [positions x batch] of labels [batch, positions] that are not IGNORED."""
    return (labels.t().reshape(-1) != IGNORED).nonzero().squeeze(1)


def losses(hidden: Tensor, weight: Tensor, labels: Tensor, places: Tensor, bias: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of each label.

    Args:
        hidden: [places, hidden].
        weight, bias: as in `logits`.
        labels: int64 [batch, positions].
        places: `chosen(labels)`: a masked language model asks for 15% of the positions, and pays for no more.

    Returns:
        float32 [batch, positions], in nats, 0 where the label is IGNORED.
    """
    split = parallel_state.get_tensor_model_parallel_world_size() > 1
    group = parallel_state.get_tensor_model_parallel_group() if split else None
    asked = labels.t().reshape(-1)[places]
    found = linear_cross_entropy(copy_to_tensor_model_parallel_region(hidden), weight, asked, group, bias)
    whole = torch.zeros(labels.numel(), device=found.device).index_copy(0, places, found)
    return whole.view(labels.size(1), labels.size(0)).t()
