"""The model: Megatron's GPTModel as a Llama, with a language-model or a scalar head."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import headwater_model.cpu as cpu

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from . import kernels
from .attention import CoreAttention, SelfAttention, segment_mask
from .config import ModelConfig
from .loss import linear_cross_entropy, linear_scores
from .runtime import layout

Head = Literal["lm", "scalar"]


class GPT(GPTModel):
    """Megatron's GPTModel with a loss that never holds all logits, and a scalar head as an option."""

    head: Head = "lm"
    inputs = ("position_ids", "attention_mask", "labels")
    """What of a batch, beside its tokens, `forward` takes (see `trainer.Trainer.step`)."""
    _scores = False

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        scores: bool = False,
        **megatron: Any,
    ) -> Any:
        """Run the model (on a pipeline's inner rank: this rank's layers).

        Args:
            tokens: int64 [batch, positions].
            position_ids: ignored: rotary positions are relative.
            attention_mask: bool [batch, 1, positions, positions], True where masked; or int64 [batch, positions],
                the segment that each position belongs to where rows are packed: causal within it, blind beyond;
                None: causal.
            labels: int64 [batch, positions], the id that should follow each position.
            scores: with labels, answer log-likelihoods and greedy flags instead of the loss.

        Returns:
            head "lm", no labels: logits [batch, positions, vocabulary] in the model's type.
            head "lm", labels: float32 [batch, positions], negative log-likelihood of each label in nats;
            with scores: a pair of float32 log-likelihoods and bool "is the likeliest id", same shape.
            head "scalar": float32 [batch, positions].
        """
        self._scores = scores
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = segment_mask(attention_mask)
        return super().forward(tokens, position_ids, attention_mask, labels=labels, **megatron)

    def _postprocess(self, hidden_states: Tensor, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not self.post_process:
            return hidden_states
        if self.head == "scalar":
            return self.output_layer(hidden_states).squeeze(-1).float().transpose(0, 1).contiguous()
        if labels is None:
            kwargs["runtime_gather_output"] = True
            return super()._postprocess(hidden_states, labels=None, **kwargs)
        shared = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if shared else self.output_layer.weight
        rows, batch, width = hidden_states.shape
        group = self.pg_collection.tp if self.pg_collection.tp.size() > 1 else None
        flat = labels.t().reshape(-1)
        if self._scores:
            found = linear_scores(hidden_states.reshape(-1, width), weight, flat, group)
            return tuple(t.view(rows, batch).t() for t in found)
        hidden = copy_to_tensor_model_parallel_region(hidden_states, group=self.pg_collection.tp)
        loss = linear_cross_entropy(hidden.reshape(-1, width), weight, flat, group)
        return loss.view(rows, batch).t()


class ScalarHead(nn.Linear):
    """hidden -> one number a position, the same on every tensor-parallel rank."""

    def __init__(self, hidden: int):
        super().__init__(hidden, 1, bias=False)


def build(config: ModelConfig, head: Head = "lm", dtype: torch.dtype = torch.float32, seed: int | None = None) -> GPT:
    """Build the model, or this rank's part of it, with fresh weights on the device at hand.

    Args:
        config: shape.
        head: "lm": vocabulary logits; "scalar": one float32 a position (reward, value).
        dtype: of the parameters; bfloat16 trains with fp32 masters in the optimiser.
        seed: of the weights; they depend on it and the shape only, never on the layout. None: torch's seed.

    Raises:
        ValueError: the layout does not divide the model.
    """
    parallel = layout()
    parallel.check(config)
    first = parallel_state.is_pipeline_first_stage()
    last = parallel_state.is_pipeline_last_stage()
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.self_attention.module = SelfAttention
    spec.submodules.self_attention.submodules.core_attention = CoreAttention
    with cpu.on_device():
        model = GPT(
            config=_megatron_config(config, dtype, parallel.tensor, parallel.pipeline),
            transformer_layer_spec=spec,
            vocab_size=config.vocab,
            max_sequence_length=config.context,
            pre_process=first,
            post_process=last,
            share_embeddings_and_output_weights=config.tie_embeddings and head == "lm",
            position_embedding_type="rope",
            rotary_base=config.rope_base,  # type: ignore[arg-type]
        )
        model.head = head
        if head == "scalar" and last:
            model.output_layer = ScalarHead(config.hidden)
        _mark_shards(model)
        initialise(model, config, torch.initial_seed() if seed is None else seed)
        model.to(device=cpu.DEVICE, dtype=dtype)
        kernels.adopt(model)
    return model


@torch.no_grad()
def initialise(model: GPT, config: ModelConfig, seed: int) -> None:
    """Draw every weight from a generator of its own, seeded by `seed` and the weight's global name.

    So tensor- and pipeline-parallel ranks hold parts of the very weights that one rank would hold. Matrices
    are normal with std 1/sqrt(fan in) (or init_std), those that write to the residual stream smaller by
    sqrt(2 x layers) (GPT-2); embeddings have std 0.02; norms are 1, a scalar head starts at 0.
    """
    for part in _shards(model.sharded_state_dict()):
        name, weight = part.key, part.data
        if weight is None or not torch.is_tensor(weight) or not weight.is_floating_point():
            continue
        layer = part.global_offset[: part.prepend_axis_num]
        shape = part.global_shape[part.prepend_axis_num :]
        if len(shape) == 1:
            weight.fill_(1.0)
            continue
        if model.head == "scalar" and name.startswith("output_layer"):
            weight.zero_()
            continue
        digest = hashlib.sha256(f"{seed} {name} {list(layer)}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        std = config.init_std or shape[-1] ** -0.5
        if "embeddings" in name or name.startswith("output_layer"):
            std = 0.02
        elif "linear_proj" in name or "linear_fc2" in name:
            std /= (2 * config.layers) ** 0.5
        whole = torch.randn(shape, generator=generator) * std
        offset = part.global_offset[part.prepend_axis_num :]
        place = tuple(slice(o, o + n) for o, n in zip(offset, weight.shape, strict=True))
        weight.copy_(whole[place])


def _mark_shards(model: GPT) -> None:
    """Say of each split matrix that it is one: Megatron does so only while it initialises, and the norm of the
    gradient counts an unmarked one on the first tensor-parallel rank alone."""
    axis = {VocabParallelEmbedding: 0, ColumnParallelLinear: 0, RowParallelLinear: 1}
    for module in model.modules():
        if type(module) in axis and module.weight is not None:
            set_tensor_model_parallel_attributes(module.weight, True, axis[type(module)], 1)


def _shards(state: Any) -> list[ShardedTensor]:
    """The sharded tensors of a state dict, factories (the two halves of a gated MLP) taken apart."""
    found: list[ShardedTensor] = []
    for value in state.values() if isinstance(state, dict) else state:
        if isinstance(value, ShardedTensorFactory):
            found += _shards(value.build())
        elif isinstance(value, ShardedTensor):
            found.append(value)
        elif isinstance(value, dict | list):
            found += _shards(value)
    return found


def _megatron_config(config: ModelConfig, dtype: torch.dtype, tensor: int, pipeline: int) -> TransformerConfig:
    return TransformerConfig(
        num_layers=config.layers,
        hidden_size=config.hidden,
        num_attention_heads=config.heads,
        num_query_groups=config.key_value_heads,
        ffn_hidden_size=config.ffn_width,
        normalization="RMSNorm",
        layernorm_epsilon=config.norm_eps,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        variable_seq_lengths=pipeline > 1,
        moe_token_dispatcher_type="alltoall",  # no experts here, but Megatron refuses its default with the line above
        batch_p2p_comm=cpu.HAS_CUDA,  # gloo has no batched point-to-point
        use_cpu_initialization=True,
        perform_initialization=False,  # `initialise` does it
        gradient_accumulation_fusion=False,  # needs Apex
        calculate_per_token_loss=True,  # gradients are divided by the tokens of the whole batch
    )
