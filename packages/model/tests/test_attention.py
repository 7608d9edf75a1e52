"""Core attention in blocks, with masks and with grouped heads, against the textbook's formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model.attention import BLOCK, BlockAttention, segment_mask


def _textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    scores = q @ k.transpose(1, 2) / q.size(-1) ** 0.5
    if mask is None:
        mask = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(mask, -torch.inf).softmax(-1) @ v


def _agree(size: int, seed: int, mask: torch.Tensor | None = None) -> None:
    """Values and gradients of two sequences of three heads."""
    g = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(6, size, 8, generator=g).requires_grad_() for _ in range(3)]
    upstream = torch.randn(6, size, 8, generator=g)
    whole = None if mask is None else mask.expand(2, 3, size, size).reshape(6, size, size)
    got, expected = BlockAttention.apply(*qkv, mask), _textbook(*qkv, whole)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(torch.autograd.grad(got, qkv, upstream), torch.autograd.grad(expected, qkv, upstream), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


sizes = st.sampled_from([1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])


@given(sizes, st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_blocks_give_the_textbooks_values_and_gradients(size: int, seed: int) -> None:
    _agree(size, seed)


@given(sizes, st.integers(0, 2**31), st.sampled_from([1, 2]), st.sampled_from([3, 90, 400]))
@settings(max_examples=20, deadline=None)
def test_blocks_under_a_mask_do_too_and_see_no_hidden_key(size: int, seed: int, batch: int, longest: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, longest + 1, (batch, size))
    segments = torch.from_numpy(np.stack([np.repeat(np.arange(size), row)[:size] for row in lengths]))
    mask = segment_mask(segments)
    for query in range(0, size, 17):
        seen = (~mask[0, 0, query]).nonzero().flatten().tolist()
        assert seen == [key for key in range(query + 1) if segments[0, key] == segments[0, query]]
    _agree(size, seed, mask)
    _agree(size, seed, mask.flip(-1, -2))  # one that hides the past


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


@pytest.mark.parametrize("grad", [True, False])
def test_a_packed_row_gets_the_logits_that_it_gets_alone(grad: bool) -> None:
    from headwater_model import gpt
    from headwater_model.config import ModelConfig

    model = gpt.build(ModelConfig(layers=2, hidden=64, heads=4, kv_heads=2, vocab=128, context=300), seed=2)
    draw = np.random.default_rng(0)
    rows = [torch.from_numpy(draw.integers(0, 128, (1, length))) for length in (3, 150, 1, 120)]
    segments = torch.cat([torch.full_like(row, number) for number, row in enumerate(rows, 1)], 1)
    with torch.set_grad_enabled(grad):
        together = model(torch.cat(rows, 1), None, segments).detach()
        for row, found in zip(rows, together.split([row.size(1) for row in rows], 1), strict=True):
            torch.testing.assert_close(found, model(row).detach(), rtol=1e-4, atol=1e-5)
