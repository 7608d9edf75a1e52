"""The model: Megatron's GPTModel in every architecture of `ModelConfig`, with a language-model or a scalar head."""

from __future__ import annotations

from typing import Any, Literal

import headwater_model.cpu as cpu

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region, gather_from_sequence_parallel_region
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.transformer_block import get_num_layers_to_build
from torch import Tensor, nn

from . import kernels
from .attention import prefix_mask, segment_mask
from .initialise import initialise
from .layers import block_spec
from .loss import linear_cross_entropy, linear_scores
from .megatron_config import megatron_config
from .model_config import Kind, ModelConfig, Position
from .positions import Sinusoids, positions
from .runtime import layout
from .tree import Tree

Head = Literal["lm", "scalar"]
POSITIONS: dict[Position, Literal["rope", "learned_absolute", "none"]] = {
    "rotary": "rope",
    "learned": "learned_absolute",
    "sinusoidal": "learned_absolute",  # `Sinusoids` then stands where the learned table would
    "alibi": "none",  # in the attention, see `CoreAttention`
    "none": "none",
}


class GPT(GPTModel):
    """Megatron's GPTModel with a loss that never holds all logits, and a scalar head as an option."""

    head: Head = "lm"
    kind: Kind = "decoder"
    inputs = ("position_ids", "attention_mask", "labels", "prefix", "loss_mask")
    """What of a batch, beside its tokens, `forward` takes (see `trainer.Trainer.step`)."""
    _scores = False
    _loss_mask: Tensor | None = None

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | Tree | None = None,
        labels: Tensor | None = None,
        scores: bool = False,
        prefix: Tensor | None = None,
        loss_mask: Tensor | None = None,
        **megatron: Any,
    ) -> Any:
        """Run the model (on a pipeline's inner rank: this rank's layers).

        Args:
            tokens: int64 [batch, positions].
            position_ids: int64 [batch, positions], for learned and sinusoidal positions; None: how many earlier
                positions each one sees. Rotary positions and linear biases are relative and need none.
            attention_mask: bool [batch, 1, positions, positions], True where masked; or int64 [batch, positions],
                the segment that each position belongs to where rows are packed: causal within it, blind beyond;
                or the `Tree` that the only row is; None: causal.
            labels: int64 [batch, positions], the id that should follow each position.
            scores: with labels, answer log-likelihoods and greedy flags instead of the loss.
            prefix: int64 [batch], length of each row's prefix, whose positions all see each other (T5,
                arXiv:1910.10683, section 3.2.1); in place of attention_mask.
            loss_mask: bool or float [batch, positions], with labels: where it is 0 the label is not looked at, the
                answer is 0, and the output layer does not run.

        Returns:
            head "lm", no labels: logits [batch, positions, vocabulary] in the model's type.
            head "lm", labels: float32 [batch, positions], negative log-likelihood of each label in nats;
            with scores: a pair of float32 log-likelihoods and bool "is the likeliest id", same shape.
            head "scalar": float32 [batch, positions].

        Raises:
            ValueError: prefix together with attention_mask, or more positions than the model has.
        """
        self._scores, self._loss_mask = scores, loss_mask
        if prefix is not None:
            if attention_mask is not None:
                raise ValueError("prefix makes a mask of its own; give it or attention_mask, not both")
            attention_mask = prefix_mask(prefix, tokens.size(1))
        elif isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
            attention_mask = segment_mask(attention_mask)
        if position_ids is None and self.pre_process and self.position_embedding_type == "learned_absolute":
            cache = megatron.get("inference_context")
            start = cache.sequence_len_offset if cache else 0
            if attention_mask is None and start + tokens.size(1) > self.max_sequence_length:
                raise ValueError(f"{start + tokens.size(1)} positions, but the model has {self.max_sequence_length}")
            position_ids = positions(tokens.size(1), attention_mask, start, tokens.device)
        return super().forward(tokens, position_ids, attention_mask, labels=labels, **megatron)

    def _postprocess(self, hidden_states: Tensor, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not self.post_process:
            return hidden_states
        if self.head == "scalar":
            if self.config.sequence_parallel:
                hidden_states = gather_from_sequence_parallel_region(hidden_states, tensor_parallel_output_grad=False)
            return self.output_layer(hidden_states).squeeze(-1).float().transpose(0, 1).contiguous()
        if labels is None:
            kwargs["runtime_gather_output"] = True
            return super()._postprocess(hidden_states, labels=None, **kwargs)
        shared = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if shared else self.output_layer.weight
        tensor_group = self.pg_collection.tp
        if self.config.sequence_parallel:
            hidden_states = gather_from_sequence_parallel_region(hidden_states, group=tensor_group)
        else:
            hidden_states = copy_to_tensor_model_parallel_region(hidden_states, group=tensor_group)
        rows, batch, width = hidden_states.shape
        group = tensor_group if tensor_group.size() > 1 else None
        flat = labels.t().reshape(-1)
        if self._scores:
            found = linear_scores(hidden_states.reshape(-1, width), weight, flat, group)
            return tuple(t.view(rows, batch).t() for t in found)
        hidden = hidden_states.reshape(-1, width)
        if self._loss_mask is None:
            return linear_cross_entropy(hidden, weight, flat, group).view(rows, batch).t()
        counted = self._loss_mask.t().reshape(-1).nonzero().squeeze(1)
        some = linear_cross_entropy(hidden[counted], weight, flat[counted], group)
        return some.new_zeros(len(flat)).index_copy(0, counted, some).view(rows, batch).t()


class ScalarHead(nn.Linear):
    """hidden -> one number a position, the same on every tensor-parallel rank."""

    def __init__(self, hidden: int):
        super().__init__(hidden, 1, bias=False)


def build_chunks(
    config: ModelConfig, head: Head = "lm", dtype: torch.dtype = torch.float32, seed: int | None = None
) -> list[GPT]:
    """This rank's parts of the model, as many as `parallel.chunks` says; arguments as in `build`."""
    return [build(config, head, dtype, seed, chunk) for chunk in range(layout().chunks)]


def build(
    config: ModelConfig,
    head: Head = "lm",
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
    chunk: int | None = None,
) -> GPT:
    """Build the model, or this rank's part of it, with fresh weights on the device at hand.

    Args:
        config: shape.
        head: "lm": vocabulary logits; "scalar": one float32 a position (reward, value).
        dtype: of the parameters; bfloat16 trains with fp32 masters in the optimiser.
        seed: of the weights; they depend on it and the shape only, never on the layout. None: torch's seed.
        chunk: which of this rank's parts, under `parallel.chunks`.

    Raises:
        ValueError: the layout does not divide the model.
    """
    if config.kind not in ("decoder", "prefix"):
        raise ValueError(f"kind {config.kind} is no decoder")
    parallel = layout()
    parallel.check(config)
    if parallel.chunks == 1:
        chunk = None
    elif chunk is None:
        raise ValueError("parallel.chunks above 1: this model is more than one; set parallel.chunks 1")
    first = parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=chunk)
    last = parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=chunk)
    megatron = megatron_config(config, dtype, parallel)
    with cpu.on_device():
        model = GPT(
            config=megatron,
            transformer_layer_spec=block_spec(config, get_num_layers_to_build(megatron, vp_stage=chunk)),
            vocab_size=config.vocab,
            max_sequence_length=config.context,
            pre_process=first,
            post_process=last,
            share_embeddings_and_output_weights=config.tie_embeddings and head == "lm",
            position_embedding_type=POSITIONS[config.position],
            rotary_base=config.rope_base,  # type: ignore[arg-type]
            rotary_percent=config.rope_share,
            rope_scaling=config.rope_scaling is not None,
            rope_scaling_factor=config.rope_scaling or 1.0,
            vp_stage=chunk,
        )
        model.head, model.kind = head, config.kind
        if config.position == "sinusoidal" and first:
            model.embedding.position_embeddings = Sinusoids(config.context, config.hidden)
        if head == "scalar" and last:
            model.output_layer = ScalarHead(config.hidden)
        mark_shards(model)
        initialise(model, config, torch.initial_seed() if seed is None else seed, head)
        model.to(device=cpu.DEVICE, dtype=dtype)
        kernels.adopt(model)
    return model


def mark_shards(model: nn.Module) -> None:
    """Say of each split matrix that it is one: Megatron does so only while it initialises, and the norm of the
    gradient counts an unmarked one on the first tensor-parallel rank alone."""
    axis = {VocabParallelEmbedding: 0, ColumnParallelLinear: 0, RowParallelLinear: 1}
    for module in model.modules():
        if type(module) in axis and module.weight is not None:
            set_tensor_model_parallel_attributes(module.weight, True, axis[type(module)], 1)
