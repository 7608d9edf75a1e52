"""Core attention in blocks, with masks and with grouped heads, against the textbook's formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model.attention import BLOCK, BlockCausal


def _textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = q @ k.transpose(1, 2) / q.size(-1) ** 0.5
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


@given(st.sampled_from([1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5]), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_blocks_give_the_textbooks_values_and_gradients(size: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(3, size, 8, generator=g).requires_grad_() for _ in range(3)]
    upstream = torch.randn(3, size, 8, generator=g)
    got, expected = BlockCausal.apply(*qkv), _textbook(*qkv)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(torch.autograd.grad(got, qkv, upstream), torch.autograd.grad(expected, qkv, upstream), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_training_and_inference_paths_agree(kv_heads: int) -> None:
    from headwater_model import gpt
    from headwater_model.config import ModelConfig

    config = ModelConfig(layers=1, hidden=64, heads=4, kv_heads=kv_heads, vocab=128, context=160)
    model = gpt.build(config, seed=2)
    tokens = torch.randint(0, 128, (2, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inference = model(tokens)
    torch.testing.assert_close(model(tokens).detach(), inference, rtol=1e-4, atol=1e-5)
