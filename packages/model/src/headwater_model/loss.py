"""Output embedding and cross-entropy in one step, a few hundred rows at a time, on split vocabularies too.

The logits of a batch are the largest tensor of a small model. Here they exist only for `ROWS` positions at
once: their softmax less the one-hot target, which is the gradient, overwrites them in the model's own type
and is kept for the backward pass (Liger, arXiv:2410.10989, does the same with the products as well; here
the gradient of a position's loss is not known before the backward pass, since PPO weighs each one).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import kernels, products

ROWS = 512  # positions at once; at 4,096 ids 8 MB in fp32, which stays in cache


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    group: dist.ProcessGroup | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each label.

    Args:
        hidden: [positions, hidden], any float type.
        weight: [vocabulary of this rank, hidden], the same type.
        labels: int64 [positions], ids of the whole vocabulary.
        group: tensor-parallel group that splits the vocabulary evenly in rank order; None: not split.
            Backward returns this rank's part of the gradient of `hidden`.
        bias: [vocabulary of this rank], the same type; None: none.

    Returns:
        float32 [positions], in nats; the gradient flows into hidden, weight and bias.
    """
    keep = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(hidden, weight, labels, group, keep, bias)


@torch.no_grad()
def linear_scores(
    hidden: Tensor, weight: Tensor, labels: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Log-likelihood of each label, and whether it is the likeliest id.

    Shapes as in `linear_cross_entropy`.

    Returns:
        float32 [positions] in nats, bool [positions].
    """
    size, rank = _place(group)
    nll, greedy = [], []
    for rows in range(0, len(hidden), ROWS):
        logits = (hidden[rows : rows + ROWS] @ weight.t()).float()
        local, mine = _local(labels[rows : rows + ROWS], weight.size(0), rank)
        loss, top, target = _reduce(logits, local, mine, group, size)
        nll.append(loss)
        greedy.append(target >= top)
    return -torch.cat(nll), torch.cat(greedy)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, group: Any, keep: bool, bias: Tensor | None
    ) -> Tensor:
        size, rank = _place(group)
        out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slope = torch.empty(len(hidden), weight.size(0), dtype=hidden.dtype, device=hidden.device) if keep else None
        for start in range(0, len(hidden), ROWS):
            rows = slice(start, start + ROWS)
            raw = products.matmul(hidden[rows], weight.t(), out=None if slope is None else slope[rows])
            if size == 1 and bias is None:
                out[rows] = kernels.cross_entropy_(raw, labels[rows])
                continue
            logits = raw.float() if bias is None else raw.float() + bias.float()
            local, mine = _local(labels[rows], weight.size(0), rank)
            out[rows], _, _ = _reduce(logits, local, mine, group, size)
            if slope is not None:  # logits now holds the softmax
                logits[torch.arange(len(local), device=local.device), local] -= mine.float()
                slope[rows] = logits
        ctx.save_for_backward(hidden, weight, slope)
        ctx.biased = bias is not None
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:
        hidden, weight, slope = ctx.saved_tensors
        upstream = upstream[:, None].to(slope.dtype)  # applied to the narrow matrices, not to the wide one
        learns = ctx.needs_input_grad[1]  # a frozen table would cost a third of the products here
        dweight = products.matmul(slope.t(), hidden * upstream) if learns else None
        dbias = (slope.t() @ upstream).squeeze(-1) if ctx.biased else None
        return products.matmul(slope, weight).mul_(upstream), dweight, None, None, None, dbias


def _place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    return (1, 0) if group is None else (dist.get_world_size(group), dist.get_rank(group))


def _local(labels: Tensor, vocabulary: int, rank: int) -> tuple[Tensor, Tensor]:
    """Row index of each label in this rank's part (0 where it lies elsewhere), and whether it lies here."""
    shifted = labels - rank * vocabulary
    mine = (shifted >= 0) & (shifted < vocabulary)
    return shifted * mine, mine


def _reduce(logits: Tensor, local: Tensor, mine: Tensor, group: Any, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Turn float32 logits into the softmax in place; return loss, and top and target logit less the maximum."""
    top = logits.amax(-1)
    if size > 1:
        dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
    logits -= top[:, None]
    target = logits.gather(-1, local[:, None]).squeeze(-1) * mine
    logits.exp_()
    total = logits.sum(-1)
    if size > 1:
        both = torch.stack([total, target])
        dist.all_reduce(both, group=group)
        total, target = both
    logits /= total[:, None]
    return total.log() - target, torch.zeros_like(top), target
