"""What a model says of given tokens: logits, log-likelihoods, values. One rank or tensor parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from headwater_model import cpu

from . import kernels, products
from .gpt import GPT
from .tree import Tree

ROWS = 512
"""Positions whose logits are held at once."""


def logits(model: GPT, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
    """Vocabulary logits at every position.

    Args:
        tokens: int64 [batch, positions]; rows that are padded on the right need no mask: attention is causal.
        padding: bool [batch, positions], True at padding on the left.

    Returns:
        [batch, positions, vocabulary] in the model's type.
    """
    with cpu.on_device():
        return model(tokens.to(cpu.DEVICE), None, attention_mask(padding))


def token_logprobs(model: GPT, tokens: Tensor, padding: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
    """log p(token t+1 | tokens to t), without holding all logits; differentiable.

    Args:
        tokens: int64 [batch, positions], padded on the right, or on the left with `padding`.
        padding: bool [batch, positions], True at padding on the left.
        wanted: bool [batch, positions - 1]; elsewhere the answer is 0 and the output layer does not run.

    Returns:
        float32 [batch, positions - 1]; what stands at padding means nothing.
    """
    tokens = tokens.to(cpu.DEVICE)
    mask = attention_mask(None if padding is None else padding[:, :-1])
    wanted = None if wanted is None else wanted.to(cpu.DEVICE)
    with cpu.on_device():
        return -model(tokens[:, :-1], None, mask, labels=tokens[:, 1:], loss_mask=wanted)


@torch.no_grad()
def token_scores(model: GPT, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Like `token_logprobs`, and whether each token is the one that greedy decoding would choose.

    Returns:
        float32 [batch, positions - 1], bool [batch, positions - 1].
    """
    tokens = tokens.to(cpu.DEVICE)
    with cpu.on_device():
        return model(tokens[:, :-1], labels=tokens[:, 1:], scores=True)


@torch.no_grad()
def tree_scores(model: GPT, tree: Tree, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How likely each label is right after a token of a prefix tree; the output layer runs at these places only.

    Whole models (no tensor or pipeline parallelism).

    Args:
        tree: from `tree.trees`.
        places, labels: int64 [N]; a place may come several times, with different labels, and is computed once.

    Returns:
        float32 [N], nats; bool [N], whether the label is the likeliest id (of equals: the first).
    """
    shared = model.share_embeddings_and_output_weights
    weight = model.shared_embedding_or_output_weight() if shared else model.output_layer.weight
    tree, places, labels = (t.to(weight.device) for t in (tree, places, labels))
    positions = tree.depths[None] if model.position_embedding_type == "learned_absolute" else None
    model.post_process = False  # it then hands its hidden states on, as a pipeline's inner rank does
    try:
        with cpu.on_device():
            hidden = model(tree.tokens[None], positions, tree).squeeze(1)
    finally:
        model.post_process = True
    distinct, row_of = places.unique(return_inverse=True)
    nats, greedy = torch.empty(len(labels), device=weight.device), torch.empty_like(labels, dtype=torch.bool)
    for start in range(0, len(distinct), ROWS):
        logits = products.matmul(hidden[distinct[start : start + ROWS]], weight.t())
        evidence, best = kernels.log_sum_exp(logits)
        here = ((row_of >= start) & (row_of < start + ROWS)).nonzero().squeeze(1)
        rows, own = row_of[here] - start, labels[here]
        nats[here] = logits[rows, own].float() - evidence[rows]
        greedy[here] = best[rows] == own
    return nats.cpu(), greedy.cpu()


def values(model: GPT, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
    """The scalar head at every position (reward, value); differentiable.

    Returns:
        float32 [batch, positions].
    """
    with cpu.on_device():
        return model(tokens.to(cpu.DEVICE), None, attention_mask(padding))


def attention_mask(padding: Tensor | None) -> Tensor | None:
    """Causal mask that hides left padding; padding sees itself, so that no softmax is empty.

    Args:
        padding: bool [batch, positions], True at padding.

    Returns:
        bool [batch, 1, positions, positions], True where masked.
    """
    if padding is None or not bool(padding.any()):
        return None
    padding = padding.to(cpu.DEVICE)
    size = padding.size(1)
    later = torch.ones(size, size, dtype=torch.bool, device=padding.device).triu(1)
    self_only = ~torch.eye(size, dtype=torch.bool, device=padding.device)
    return (later | padding[:, None, :] & self_only)[:, None]
