"""Bytes on the most loaded device of a layout: weights, gradients, optimiser state, activations.

Activations follow Korthikanti et al. 2022 (arXiv:2205.05198, sections 4 and 5), term by term, so that grouped
queries, gated MLPs and flash attention are counted too; for GPT-2's layer the terms add up to the paper's
s b h (10 + 24/t + 5 a s / (h t)) bytes a layer, and with sequence parallelism to s b h (34/t + 5 a s / (h t)).
Not counted: the CUDA context, communication buffers, fragmentation and temporaries; `RESERVE` is left for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .hardware import Device
from .layouts import Layout
from .shapes import Shape

RESERVE = 0.08
"""Share of a device's memory left for what is not counted; an assumption."""
OPTIMIZER_STATE = {"bfloat16": 12, "float32": 8}
"""Bytes a parameter: Adam's two moments in float32, and with bfloat16 weights the float32 master copy."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def fits(memory: Memory, device: Device) -> bool:
    """Whether the device holds it beside the reserve."""
    return memory.total <= usable(device)


def usable(device: Device) -> float:
    """Bytes for what is counted."""
    return device.memory * (1 - RESERVE)


def estimate(shape: Shape, layout: Layout, batch: int) -> Memory:
    """Memory of the most loaded device.

    The first stage holds the input table and the most micro-batches in flight, the last one the output matrix and
    the logits: whichever is larger.

    Args:
        batch: sequences a step, of all data-parallel ranks.
    """
    return max((stage(shape, layout, batch, s) for s in {0, layout.pipeline - 1}), key=lambda memory: memory.total)


def stage(shape: Shape, layout: Layout, batch: int, index: int) -> Memory:
    """Memory of a device of pipeline stage `index` (from 0)."""
    parameters = stage_parameters(shape, layout, index == 0, index == layout.pipeline - 1)
    shards = layout.shards
    weights = parameters * layout.width
    if layout.zero >= 3:  # the shard, the layer at work, and the one being gathered
        shard = weights / shards
        weights = shard + min(weights - shard, 2 * shape.layer_matrices / layout.tensor * layout.width)
    return Memory(
        weights,
        parameters * layout.gradient_width / (shards if layout.zero >= 2 else 1),
        parameters * OPTIMIZER_STATE[layout.precision] / (shards if layout.zero >= 1 else 1),
        stage_activations(shape, layout, batch, index),
    )


def stage_parameters(shape: Shape, layout: Layout, first: bool, last: bool) -> float:
    """Parameters of one device of a stage, before ZeRO: matrices are split over tensor ranks, norms are not.

    Tied embeddings lie on the first and on the last stage.
    """
    layers = shape.layers / layout.pipeline
    parameters = layers * (shape.layer_matrices / layout.tensor + shape.layer_vectors)
    if first:
        parameters += shape.embedding / layout.tensor + shape.positions
    if last:
        parameters += shape.final_norm
        if not (first and shape.tied):
            parameters += shape.embedding / layout.tensor
    return parameters


def layer_activations(shape: Shape, layout: Layout) -> float:
    """Bytes kept for the backward pass of one layer and one micro-batch, on one device.

    Table 2 of arXiv:2205.05198; `full` keeps the layer's input alone.
    """
    width, mask = layout.width, 1 if shape.dropout else 0
    tokens = layout.micro_batch * shape.context / layout.context
    if layout.recompute == "full":
        return width * tokens * shape.hidden / layout.sequence_split
    # two norms' inputs, the inputs of attention and MLP, and the masks of the two dropouts after them
    replicated = tokens * shape.hidden * (4 * width + 2 * mask)
    split = tokens * width * (2 * shape.query_width + 2 * shape.kv_width)  # q, k, v, the output projection's input
    split += tokens * width * shape.ffn_width * shape.mlp_matrices  # into the MLP's activation, and out of it
    if layout.attention == "flash":
        split += 4 * tokens * shape.heads  # the logarithm of each row's sum
    elif layout.recompute == "none":  # softmax, and dropout's mask and output
        split += tokens * shape.heads * shape.context * (width + (width + mask if shape.dropout else 0))
    return replicated / layout.sequence_split + split / layout.tensor


def in_flight(layout: Layout, batch: int, index: int = 0) -> float:
    """Micro-batches whose activations a stage holds at once, in units of the stage's whole depth.

    One forward, one backward: stage i of p holds p - i. Interleaved, Megatron's schedule warms up with
    2 (p - i - 1) + (v - 1) p chunks and adds one, so that the first holds 1 + (p - 1)/(p v) times as much
    (arXiv:2205.05198, section 4.2.3). A step of fewer micro-batches never fills the pipeline.
    """
    p, v = layout.pipeline, layout.interleave
    filled = p - index if v == 1 else (2 * (p - index - 1) + (v - 1) * p + 1) / v
    return min(layout.micro_batches(batch), filled)


def stage_activations(shape: Shape, layout: Layout, batch: int, index: int) -> float:
    """Bytes of activations that a device of stage `index` holds at its fullest."""
    tokens = layout.micro_batch * shape.context / layout.context
    local = tokens * shape.hidden / layout.sequence_split
    filled = in_flight(layout, batch, index)
    held = layer_activations(shape, layout) * shape.layers / layout.pipeline * filled
    if layout.recompute == "full":  # the layer at work is whole
        held += layer_activations(shape, replace(layout, recompute="none"))
    if index == 0 and shape.dropout:  # the mask of the embedding's dropout
        held += local * filled
    if index == layout.pipeline - 1:  # inputs of the last norm and of the output layer, float32 logits
        held += 2 * layout.width * local + 4 * tokens * shape.vocab / layout.tensor
    return held
