"""T5: Megatron's encoder-decoder with relative position biases, and a loss that never holds all logits.

Raffel et al., arXiv:1910.10683. Version 1.0 has tied embeddings, ReLU, and logits divided by sqrt(hidden) (its
embeddings have a standard deviation of 1); version 1.1 has an output embedding of its own and a gated tanh GELU
(Shazeer, arXiv:2002.05202). Scores are divided by sqrt(head width) as in every other model here, where T5 leaves the
division to its query weights: `huggingface.t5` multiplies and divides them.
"""

from __future__ import annotations

import contextlib
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.nn.functional as F
from megatron.core.models.T5.t5_model import T5Model
from megatron.core.models.T5.t5_spec import decoder_model_with_local_spec, encoder_model_with_local_spec
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from . import kernels, vocabulary
from .gpt import Head, mark_shards
from .initialise import initialise
from .megatron_config import megatron_config
from .model_config import ModelConfig
from .runtime import layout


class T5(T5Model):
    """Megatron's T5Model, one layout of one pipeline stage."""

    head: Head = "lm"
    inputs = ("decoder_tokens", "padding", "labels")
    """What of a batch, beside its tokens, `forward` takes (see `trainer.Trainer.step`)."""

    def __init__(self, **megatron: Any):
        super().__init__(**megatron)
        # Megatron's head would make all logits, and has a bias where embeddings are tied.
        self.post_process = False
        del self.lm_head
        if self.share_embeddings_and_output_weights:
            del self.output_layer

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        decoder_tokens: Tensor,
        padding: Tensor | None = None,
        labels: Tensor | None = None,
        encoded: Tensor | None = None,
    ) -> Tensor:
        """Run encoder and decoder.

        Args:
            tokens: int64 [batch, positions], what is read.
            decoder_tokens: int64 [batch, target positions], what is written, one late.
            padding: bool [batch, positions], True at padding of `tokens`, on either side.
            labels: int64 [batch, target positions], the id that should follow each; IGNORED counts for nothing.
            encoded: `encode(tokens, padding)`, in place of running the encoder again.

        Returns:
            no labels: logits [batch, target positions, vocabulary] in the model's type.
            labels: float32 [batch, target positions], negative log-likelihood of each label in nats, 0 where IGNORED.
        """
        hidden = super().forward(
            tokens,
            decoder_tokens,
            _keys(padding),
            _later(decoder_tokens),
            _keys(padding),
            encoder_hidden_states=encoded,
        )
        weight = self.embedding.word_embeddings.weight
        if self.share_embeddings_and_output_weights:
            hidden = hidden * hidden.size(-1) ** -0.5
        else:
            weight = self.output_layer.weight
        if labels is None:
            return vocabulary.logits(hidden, weight)
        places = vocabulary.chosen(labels)
        return vocabulary.losses(hidden.flatten(0, 1)[places], weight, labels, places)

    def encode(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """What the decoder reads: [positions, batch, hidden]; arguments as in `forward`."""
        return super().forward(tokens, None, _keys(padding), None, None, output_encoder_hidden_only=True)


class BiasedAttention(MegatronModule):
    """Core attention under a learned bias and an explicit mask, of a sequence to itself or to another."""

    def __init__(self, config: TransformerConfig, layer_number: int, **_: Any):
        super().__init__(config=config)
        self.layer_number = layer_number

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attention_bias: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Attend.

        Args:
            query: [queries, batch, heads, width].
            key, value: [keys, batch, heads, width].
            attention_mask: bool, broadcastable to [batch, heads, queries, keys], True where masked.
            attention_bias: [1, heads, queries, keys], added to the scores; the gradient flows into it.

        Returns:
            [queries, batch, heads x width]
        """
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        added = attention_bias
        if attention_mask is not None:
            hidden = torch.zeros(attention_mask.shape, device=q.device).masked_fill(attention_mask, -torch.inf)
            added = hidden if added is None else added + hidden
        dropout = self.config.attention_dropout if self.training else 0.0
        # Megatron's generator, so that dropout differs between the ranks that share the heads
        with get_cuda_rng_tracker().fork() if dropout else contextlib.nullcontext():
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=None if added is None else added.to(q.dtype), dropout_p=dropout
            )
        return out.permute(2, 0, 1, 3).reshape(query.size(0), query.size(1), -1)


def build(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int | None = None) -> T5:
    """Build the model, or this rank's part of it, with fresh weights on the device at hand.

    Args:
        config: of kind encoder_decoder.
        dtype: of the parameters; bfloat16 trains with fp32 masters in the optimiser.
        seed: of the weights; they depend on it and the shape only, never on the layout. None: torch's seed.

    Raises:
        ValueError: the layout does not divide the model.
    """
    parallel = layout()
    parallel.check(config)
    encoder = config.model_copy(update={"layers": config.encoder_depth})
    with cpu.on_device():
        model = T5(
            config=megatron_config(config, dtype, parallel),
            encoder_config=megatron_config(encoder, dtype, parallel),
            transformer_encoder_layer_spec=_block(encoder_model_with_local_spec(), config.encoder_depth),
            transformer_decoder_layer_spec=_block(decoder_model_with_local_spec(), config.layers),
            vocab_size=config.vocab,
            max_sequence_length=config.context,
            share_embeddings_and_output_weights=config.tie_embeddings,
            position_embedding_type="relative",
            relative_attention_num_buckets=config.relative_buckets,
            relative_attention_max_distance=config.relative_distance,
        )
        mark_shards(model)
        initialise(model, config, torch.initial_seed() if seed is None else seed, "lm")
        model.to(device=cpu.DEVICE, dtype=dtype)
        kernels.adopt(model)
    return model


def _block(layer: Any, layers: int) -> TransformerBlockSubmodules:
    """Megatron's local layers with our attention; its norms would be Apex's, which knows no RMSNorm."""
    parts = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = WrappedTorchNorm
    parts.self_attention.submodules.core_attention = BiasedAttention
    if hasattr(parts.cross_attention, "submodules"):
        parts.pre_cross_attn_layernorm = WrappedTorchNorm
        parts.cross_attention.submodules.core_attention = BiasedAttention
    return TransformerBlockSubmodules([layer] * layers, layer_norm=WrappedTorchNorm)


def _keys(padding: Tensor | None) -> Tensor | None:
    """Mask of the keys, bool [batch, 1, 1, positions]."""
    return None if padding is None else padding[:, None, None]


def _later(tokens: Tensor) -> Tensor:
    """Causal mask, bool [1, 1, positions, positions]."""
    size = tokens.size(1)
    return torch.ones(size, size, dtype=torch.bool, device=tokens.device).triu(1)[None, None]
