"""What a model says of given tokens: logits, log-likelihoods, values. One rank or tensor parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from headwater_model import cpu

from .gpt import GPT


def logits(model: GPT, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
    """Vocabulary logits at every position.

    Args:
        tokens: int64 [batch, positions]; rows that are padded on the right need no mask: attention is causal.
        padding: bool [batch, positions], True at padding on the left.

    Returns:
        [batch, positions, vocabulary] in the model's type.
    """
    return model(tokens.to(cpu.DEVICE), None, attention_mask(padding))


def token_logprobs(model: GPT, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
    """log p(token t+1 | tokens to t), without holding all logits; differentiable.

    Args:
        tokens: int64 [batch, positions], padded on the right, or on the left with `padding`.
        padding: bool [batch, positions], True at padding on the left.

    Returns:
        float32 [batch, positions - 1]; what stands at padding means nothing.
    """
    tokens = tokens.to(cpu.DEVICE)
    mask = attention_mask(None if padding is None else padding[:, :-1])
    return -model(tokens[:, :-1], None, mask, labels=tokens[:, 1:])


@torch.no_grad()
def token_scores(model: GPT, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Like `token_logprobs`, and whether each token is the one that greedy decoding would choose.

    Returns:
        float32 [batch, positions - 1], bool [batch, positions - 1].
    """
    tokens = tokens.to(cpu.DEVICE)
    return model(tokens[:, :-1], labels=tokens[:, 1:], scores=True)


def values(model: GPT, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
    """The scalar head at every position (reward, value); differentiable.

    Returns:
        float32 [batch, positions].
    """
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
