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

import contextlib
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.tensor_parallel.random import is_checkpointing
from megatron.core.transformer.attention import SelfAttention as MegatronSelfAttention
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from . import context_parallel, kernels
from .positions import alibi_slopes
from .tree import Tree

BLOCK = 128  # queries at once


class CoreAttention(MegatronModule):
    """Causal attention with as many or fewer key/value heads than query heads; no weights of its own.

    With `alibi`, a score loses its head's slope times the distance (Press et al., arXiv:2108.12409).
    """

    def __init__(self, config: TransformerConfig, layer_number: int, alibi: bool = False, **_: Any):
        super().__init__(config=config)
        self.layer_number = layer_number
        self.slopes: Tensor | None = None  # float32 [heads of this rank], whatever the parameters' type
        if alibi:
            ranks, rank = config.tensor_model_parallel_size, parallel_state.get_tensor_model_parallel_rank()
            mine = torch.tensor(alibi_slopes(config.num_attention_heads)).chunk(ranks)[rank]
            self.slopes = mine.to(cpu.DEVICE)
        split = config.context_parallel_size > 1
        self.context_group = parallel_state.get_context_parallel_group() if split else None

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Attend; under context parallelism to the keys of all ranks, shapes being those of `context_parallel.attend`.

        Args:
            query: [query positions, batch, heads, width].
            key, value: [key positions, batch, kv heads, width].
            attention_mask: bool [batch or 1, 1, query positions, key positions], True where masked, as
                everywhere in Megatron; or the `Tree` that a single row is. None: causal, the last query standing at
                the last key.

        Returns:
            [query positions, batch, heads x width]
        """
        if isinstance(attention_mask, Tree):
            return self._attend_in_tree(query, key, value, attention_mask)
        if self.context_group is not None:
            return context_parallel.attend(self._attend, query, key, value, attention_mask, self.context_group)
        return self._attend(query, key, value, attention_mask)

    def _attend_in_tree(self, query: Tensor, key: Tensor, value: Tensor, tree: Tree) -> Tensor:
        if kernels.usable(query, key, value):
            return kernels.tree_attention(query, key, value, tree, self.slopes)
        mask = ~tree.mask()
        if self.slopes is not None:
            distance = tree.depths[:, None] - tree.depths[None, :]
            mask = torch.where(mask, -self.slopes[:, None, None] * distance, -torch.inf).to(query.dtype)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.size(1) != k.size(1))
        return out.permute(2, 0, 1, 3).flatten(2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None) -> Tensor:
        dropout = self.config.attention_dropout if self.training else 0.0
        if query.size(0) == key.size(0) > 1 and not dropout and kernels.usable(query, key, value):
            return kernels.attention(query, key, value, attention_mask, self.slopes)
        # A layer that is computed again in the backward pass must do the same in both passes.
        learns = (torch.is_grad_enabled() and query.requires_grad) or is_checkpointing()
        plain = query.shape[1:] == key.shape[1:] and query.size(0) > 1 and not dropout
        if learns and plain and query.device.type == "cpu":
            rows, batch, heads, width = query.shape
            flat = (t.flatten(1, 2).transpose(0, 1).contiguous() for t in (query, key, value))
            out = BlockAttention.apply(*flat, attention_mask, self.slopes)
            return out.transpose(0, 1).reshape(rows, batch, heads * width)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        queries, keys = q.size(2), k.size(2)
        causal = attention_mask is None and queries > 1
        mask = None if attention_mask is None else ~attention_mask
        if causal and (queries != keys or self.slopes is not None):  # a filled cache, or a bias to be masked
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
            causal = False
        if self.slopes is not None:
            mask = _biased(mask, self.slopes, queries, keys).to(q.dtype)
        # Megatron's generator, so that dropout differs between the ranks that share the heads. Under sequence
        # parallelism whole layers run in its fork already, and recomputation does not know of another one inside.
        own = dropout > 0 and not self.config.sequence_parallel
        with get_cuda_rng_tracker().fork() if own else contextlib.nullcontext():
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, enable_gqa=q.size(1) != k.size(1)
            )
        return out.permute(2, 0, 1, 3).reshape(query.size(0), query.size(1), -1)


class SelfAttention(MegatronSelfAttention):
    """Megatron's, with rotary positions applied before keys are cached: as it stands, it turns every cached key anew
    for each token."""

    def forward(self, hidden_states: Tensor, attention_mask: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Megatron's; the tokens of a `Tree` stand at their depths."""
        angles = kwargs.get("rotary_pos_emb")
        if isinstance(attention_mask, Tree) and angles is not None:
            kwargs["rotary_pos_emb"] = angles[attention_mask.depths]
        return super().forward(hidden_states, attention_mask, *args, **kwargs)

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

    There may be more keys than queries; the last ones stand at one place.
    mask: bool [batch or 1, 1, queries, keys], True where masked, no query without a key; None: causal. Keys
    that a whole block of queries does not see, such as other rows of a packed sequence, cost nothing.
    slopes: float32 [heads], ALiBi's; None: no bias.

    Backward is FlashAttention's (arXiv:2205.14135, appendix B.4) with the probabilities kept, in the inputs' type.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, slopes: Tensor | None = None
    ) -> Tensor:
        scale, size, before = q.size(-1) ** -0.5, q.size(1), k.size(1) - q.size(1)
        future = torch.full((BLOCK, BLOCK), -torch.inf).triu(1)
        out, kept, ctx.spans = torch.empty_like(q), [], []
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)
            first, last = (0, before + end) if mask is None else _seen(mask[:, 0, start:end])
            scores = torch.bmm(q[:, start:end], k[:, first:last].transpose(1, 2)).float().mul_(scale)
            if slopes is not None:
                by_head = scores.view(-1, len(slopes), end - start, last - first)
                by_head += _biased(None, slopes, end - start, last - first, before + end - last)
            if mask is None:
                scores[:, :, before + start :] += future[: end - start, : end - start]
            else:
                by_row = scores.view(mask.size(0), -1, end - start, last - first)
                by_row.masked_fill_(mask[:, :, start:end, first:last], -torch.inf)
            kept.append(scores.softmax(-1).to(q.dtype))
            out[:, start:end] = torch.bmm(kept[-1], v[:, first:last])
            ctx.spans.append((start, end, first, last))
        ctx.save_for_backward(q, k, v, out, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
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
        return dq.mul_(scale), dk.mul_(scale), dv, None, None


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


def prefix_mask(prefix: Tensor, size: int) -> Tensor:
    """Mask of a prefix language model: all of the prefix sees all of it, what follows is causal.

    Args:
        prefix: int64 [batch], positions in each row's prefix; 0: causal.

    Returns:
        bool [batch, 1, size, size], True where masked.
    """
    places = torch.arange(size, device=prefix.device)
    later = places[None, :] > places[:, None]
    return (later & (places[None, None, :] >= prefix[:, None, None]))[:, None]


def _biased(mask: Tensor | None, slopes: Tensor, queries: int, keys: int, beyond: int = 0) -> Tensor:
    """ALiBi's bias, -inf where not allowed; the last query stands `beyond` positions after the last key.

    Args:
        mask: bool, broadcastable to [batch, heads, queries, keys], True where allowed; None: everywhere.

    Returns:
        float32 [batch or nothing, heads, queries, keys].
    """
    places = torch.arange(keys, device=slopes.device)
    own = torch.arange(keys - queries, keys, device=slopes.device) + beyond
    bias = slopes[:, None, None] * -(own[:, None] - places[None, :]).abs()
    return bias if mask is None else torch.where(mask, bias, -torch.inf)


def _seen(mask: Tensor) -> tuple[int, int]:
    """The range of keys of which some query of some sequence sees one; mask: [batch, queries, keys]."""
    keys = (~mask).flatten(0, 1).any(0).nonzero()
    return int(keys[0]), int(keys[-1]) + 1
