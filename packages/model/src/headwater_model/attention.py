"""Core attention: one of Megatron's extension points.

Megatron's own unfused attention materialises a [batch, heads, query, key] matrix and its mask. On a GPU, and wherever a
cache holds more keys than there are queries, torch's scaled_dot_product_attention does the work; training on a CPU
has a kernel of its own (`kernels.attention`), and without a compiler `BlockAttention`: plain products over blocks of
queries, which leave out most of what is masked. torch's flash kernel for CPUs comes last there. Measured on one core
(AVX-512 bf16), 8 causal sequences of 512, 4 heads of 64, CPU ms forward + backward:

             bf16      fp32
  flash      30 + 71   28 + 75
  blocks     11 + 15   23 + 41
  kernel      6 + 13    8 + 19
"""

from __future__ import annotations

from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.nn.functional as F
from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from megatron.core.transformer.attention import SelfAttention as MegatronSelfAttention
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from . import kernels

BLOCK = 128  # queries at once


class CoreAttention(MegatronModule):
    """Causal attention with as many or fewer key/value heads than query heads; no weights of its own."""

    def __init__(self, config: TransformerConfig, layer_number: int, **_: Any):
        super().__init__(config=config)
        self.layer_number = layer_number

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Attend.

        Args:
            query: [query positions, batch, heads, width].
            key, value: [key positions, batch, kv heads, width].
            attention_mask: bool [batch or 1, 1, query positions, key positions], True where masked, as
                everywhere in Megatron. None: causal, the last query standing at the last key.

        Returns:
            [query positions, batch, heads x width]
        """
        if query.size(0) == key.size(0) > 1 and kernels.usable(query, key, value):
            return kernels.attention(query, key, value, attention_mask)
        whole = query.shape == key.shape and query.size(0) > 1
        if whole and query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
            rows, batch, heads, width = query.shape
            flat = (t.reshape(rows, batch * heads, width).transpose(0, 1).contiguous() for t in (query, key, value))
            return BlockAttention.apply(*flat, attention_mask).transpose(0, 1).reshape(rows, batch, heads * width)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        causal = attention_mask is None and q.size(2) > 1
        if causal and q.size(2) != k.size(2):  # a prompt's later part against a filled cache
            ones = torch.ones(q.size(2), k.size(2), dtype=torch.bool, device=q.device)
            allowed: Tensor | None = ones.tril(k.size(2) - q.size(2))
            causal = False
        else:
            allowed = None if attention_mask is None else ~attention_mask
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=causal, enable_gqa=q.size(1) != k.size(1)
        )
        return out.permute(2, 0, 1, 3).reshape(query.size(0), query.size(1), -1)


class SelfAttention(MegatronSelfAttention):
    """Megatron's, with rotary positions applied before keys are cached: as it stands, it turns every cached key anew
    for each token."""

    def _adjust_key_value_for_inference(
        self, inference_context: Any, query: Tensor, key: Tensor, value: Tensor, rotary_pos_emb: Any, *args: Any
    ) -> tuple:
        if rotary_pos_emb is not None:
            start = inference_context.sequence_len_offset if inference_context else 0
            here = slice(start, start + query.size(0))
            query, key = (self._turn(t, angles[here]) for t, angles in zip((query, key), rotary_pos_emb, strict=True))
        return super()._adjust_key_value_for_inference(inference_context, query, key, value, None, *args)

    def _turn(self, x: Tensor, angles: Tensor) -> Tensor:
        if self.config.rotary_interleaved or not kernels.usable(x):
            return apply_rotary_pos_emb(x, angles, self.config)
        return kernels.rotary(x, angles)


class BlockAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(width)) v, causal or masked; q, k, v and the result are [batch x heads, positions, width].

    mask: bool [batch or 1, 1, positions, positions], True where masked, no query without a key; None: causal. Keys
    that a whole block of queries does not see, such as other rows of a packed sequence, cost nothing.

    Backward is FlashAttention's (arXiv:2205.14135, appendix B.4) with the probabilities kept, in the inputs' type.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        scale, size = q.size(-1) ** -0.5, q.size(1)
        future = torch.full((BLOCK, BLOCK), -torch.inf).triu(1)
        out, kept, ctx.spans = torch.empty_like(q), [], []
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)
            first, last = (0, end) if mask is None else _seen(mask[:, 0, start:end])
            scores = torch.bmm(q[:, start:end], k[:, first:last].transpose(1, 2)).float().mul_(scale)
            if mask is None:
                scores[:, :, start:] += future[: end - start, : end - start]
            else:
                by_row = scores.view(mask.size(0), -1, end - start, last - first)
                by_row.masked_fill_(mask[:, :, start:end, first:last], -torch.inf)
            kept.append(scores.softmax(-1).to(q.dtype))
            out[:, start:end] = torch.bmm(kept[-1], v[:, first:last])
            ctx.spans.append((start, end, first, last))
        ctx.save_for_backward(q, k, v, out, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *kept = ctx.saved_tensors
        scale = q.size(-1) ** -0.5
        upstream = upstream.contiguous()
        delta = (upstream.float() * out.float()).sum(-1, keepdim=True).to(q.dtype)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (start, end, first, last), p in zip(ctx.spans, kept, strict=True):
            block = upstream[:, start:end]
            dv[:, first:last] += torch.bmm(p.transpose(1, 2), block)
            ds = torch.bmm(block, v[:, first:last].transpose(1, 2)).sub_(delta[:, start:end]).mul_(p)
            dq[:, start:end] = torch.bmm(ds, k[:, first:last])
            dk[:, first:last] += torch.bmm(ds.transpose(1, 2), q[:, start:end])
        return dq.mul_(scale), dk.mul_(scale), dv, None


def segment_mask(segments: Tensor) -> Tensor:
    """Block-diagonal causal mask of packed rows: a position sees those before it in its own segment, and itself.

    Args:
        segments: integers [batch, positions], equal within a row; padding is a segment like any other.

    Returns:
        bool [batch, 1, positions, positions], True where masked.
    """
    size = segments.size(1)
    later = torch.ones(size, size, dtype=torch.bool, device=segments.device).triu(1)
    return (later | (segments[:, :, None] != segments[:, None, :]))[:, None]


def _seen(mask: Tensor) -> tuple[int, int]:
    """The range of keys of which some query of some sequence sees one; mask: [batch, queries, keys]."""
    keys = (~mask).flatten(0, 1).any(0).nonzero()
    return int(keys[0]), int(keys[-1]) + 1
