"""BERT: Megatron's encoder with the norms where the paper has them, and a head that pays for masked positions only.

Devlin et al., arXiv:1810.04805: learned positions, token types, a norm after the sum of each block with its input
(Megatron's own layers have it before the block) and one over the embeddings, a dense layer before the output
embedding, which is tied and has a bias. The next-sentence task is left out: without it the model is the better one
(RoBERTa, arXiv:1907.11692, section 4.2).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import headwater_model.cpu as cpu

import torch
from megatron.core.models.bert.bert_layer_specs import bert_layer_local_spec
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn

from . import kernels, vocabulary
from .attention import CoreAttention
from .gpt import Head, mark_shards
from .initialise import initialise
from .megatron_config import megatron_config
from .model_config import ModelConfig
from .runtime import layout


class Bert(BertModel):
    """Megatron's BertModel with post-norm layers, one layout of one pipeline stage."""

    head: Head = "lm"
    inputs = ("attention_mask", "token_types", "labels")
    """What of a batch, beside its tokens, `forward` takes (see `trainer.Trainer.step`)."""

    def __init__(self, config: TransformerConfig, **megatron: Any):
        super().__init__(config, add_binary_head=False, **megatron)
        self.embedding_norm = _norm(config)
        self.embedding_dropout = self.embedding.embedding_dropout  # after the norm, not before it
        self.embedding.embedding_dropout = nn.Identity()
        self.lm_head.gelu = config.activation_func

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        token_types: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Run the encoder and its head.

        Args:
            tokens: int64 [batch, positions].
            attention_mask: int64 [batch, positions], the segment of each position, such as a document, or padding:
                positions see their own segment; None: all is one.
            token_types: int64 [batch, positions]; None: 0.
            labels: int64 [batch, positions], what each position should be; IGNORED where nothing is asked.

        Returns:
            no labels: logits [batch, positions, vocabulary] in the model's type.
            labels: float32 [batch, positions], negative log-likelihood of each label in nats, 0 where IGNORED.
        """
        segments = torch.zeros_like(tokens[:1]) if attention_mask is None else attention_mask
        types = torch.zeros_like(tokens) if token_types is None else token_types
        embedded = self.embedding(tokens, self.bert_position_ids(tokens), types)
        hidden = self.encoder(
            self.embedding_dropout(self.embedding_norm(embedded)),
            attention_mask=segments[:, None, :, None] != segments[:, None, None, :],
        )
        tied = self.share_embeddings_and_output_weights
        weight = self.embedding.word_embeddings.weight if tied else self.output_layer.weight
        if labels is None:
            return vocabulary.logits(self.lm_head(hidden), weight, self.output_layer.bias)
        places = vocabulary.chosen(labels)
        asked = self.lm_head(hidden.flatten(0, 1)[places])
        return vocabulary.losses(asked, weight, labels, places, self.output_layer.bias)

    def _sanity_check_attention_and_get_attn_mask_dimension(self) -> str:
        return "b1ss"  # Megatron's own would ask for the version of Transformer Engine


class PostNormLayer(TransformerLayer):
    """y = norm(x + attention(x)), then norm(y + mlp(y))."""

    def __init__(self, config: TransformerConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        self.attention_norm, self.mlp_norm = _norm(config), _norm(config)

    def _forward_attention(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        hidden, context = super()._forward_attention(*args, **kwargs)
        return self.attention_norm(hidden), context

    def _forward_mlp(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.mlp_norm(super()._forward_mlp(*args, **kwargs))


def build(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int | None = None) -> Bert:
    """Build the model, or this rank's part of it, with fresh weights on the device at hand.

    Args:
        config: of kind encoder.
        dtype: of the parameters; bfloat16 trains with fp32 masters in the optimiser.
        seed: of the weights; they depend on it and the shape only, never on the layout. None: torch's seed.

    Raises:
        ValueError: the layout does not divide the model.
    """
    parallel = layout()
    parallel.check(config)
    with cpu.on_device():
        model = Bert(
            config=megatron_config(config, dtype, parallel),
            num_tokentypes=config.token_types,
            transformer_layer_spec=_block(config.layers),
            vocab_size=config.vocab,
            max_sequence_length=config.context,
            share_embeddings_and_output_weights=config.tie_embeddings,
        )
        mark_shards(model)
        initialise(model, config, torch.initial_seed() if seed is None else seed, "lm")
        model.to(device=cpu.DEVICE, dtype=dtype)
        kernels.adopt(model)
    return model


def _block(layers: int) -> TransformerBlockSubmodules:
    spec = deepcopy(bert_layer_local_spec)
    spec.module = PostNormLayer
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = IdentityOp
    spec.submodules.self_attention.submodules.core_attention = CoreAttention
    return TransformerBlockSubmodules([spec] * layers)


def _norm(config: TransformerConfig) -> nn.Module:
    return WrappedTorchNorm(config, config.hidden_size, config.layernorm_epsilon)  # type: ignore[return-value]
