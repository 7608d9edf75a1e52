"""Seconds of a training step from a roofline of its parts.

Every operation takes the longer of its arithmetic at the rate the device sustains and its traffic at the bandwidth
its memory reaches; communication.py gives what links add. Counted: the products of each layer forward and backward,
the traffic of norms, activation, dropout and softmax, recomputation, collectives, the pipeline's bubble, the output
layer on the last stage (for which all wait), the optimiser. Not counted: data loading, checkpoints, stragglers.

One number a device is fitted, what its products sustain (`matmul_fraction` in hardware.yaml, which says to which runs);
validation.py compares the rest with runs that were not used for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import communication
from .hardware import Device
from .layouts import Layout
from .memory import stage_parameters
from .shapes import Shape

MEMORY_FRACTION = 0.85
"""Of a memory's bandwidth, what streaming kernels reach; an assumption."""
LAUNCH = 5e-6
"""Seconds a kernel takes whatever its size; an assumption."""
OPTIMIZER_TRAFFIC = 30
"""Bytes a parameter that Adam moves: reads gradient, master and two moments, writes those three and the weight."""


@dataclass(frozen=True)
class Step:
    """Predicted seconds of one optimiser step, by what the most loaded device waits for."""

    compute: float
    """Products and memory traffic of all micro-batches, forward and backward."""
    recompute: float
    tensor: float
    context: float
    """What the attention does not hide."""
    pipeline: float
    """Transfers between stages."""
    bubble: float
    """(p - 1)/(m v) of the rest (arXiv:2104.04473, section 2.2)."""
    data: float
    """What the passes do not hide of reducing gradients and gathering weights."""
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(vars(self).values())

    def share(self, part: str) -> float:
        """Of the step, what one part takes."""
        return getattr(self, part) / self.total


def step(shape: Shape, layout: Layout, device: Device, batch: int) -> Step:
    """Predicted times of one step of `batch` sequences on `layout.devices` devices."""
    m, layers = layout.micro_batches(batch), shape.layers / layout.pipeline
    forward, backward = layer_passes(shape, layout, device)
    compute = m * (layers * (forward + backward) + output_passes(shape, layout, device))
    recompute = m * layers * recomputed(shape, layout, device, forward)
    tensor = communication.tensor(shape, layout, device, batch).seconds
    context = communication.context(shape, layout, device, batch).seconds
    if context:
        context = max(0.0, context - m * layers * sum(attention(shape, layout, device, back) for back in (False, True)))
    pipeline = communication.pipeline(shape, layout, device, batch).seconds
    busy = compute + recompute + tensor + context + pipeline
    bubble = (layout.pipeline - 1) / (m * layout.interleave) * busy
    data = exposed(shape, layout, device, batch, compute + recompute)
    return Step(
        compute, recompute, tensor, context, pipeline, bubble, data, optimizer_seconds(shape, layout, device)
    )  # fmt: skip


def tokens_per_second(shape: Shape, batch: int, step: Step) -> float:
    """Tokens a second of the whole job."""
    return batch * shape.context / step.total


def utilisation(shape: Shape, layout: Layout, device: Device, batch: int, step: Step, causal: bool = True) -> float:
    """Model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B): recomputation does not count.

    Args:
        causal: see `Shape.flops_per_token`; the papers count the masked half of the scores too.
    """
    rate = tokens_per_second(shape, batch, step) * shape.flops_per_token(causal) / layout.devices
    return rate / device.peak(layout.precision)


def layer_passes(shape: Shape, layout: Layout, device: Device) -> tuple[float, float]:
    """Seconds of one layer and micro-batch, forward and backward, without recomputation and collectives."""
    t, tokens = layout.tensor, layout.micro_batch * shape.context / layout.context
    h, inner = shape.hidden, shape.ffn_width * (shape.mlp_matrices - 1)
    products = (
        matmul(tokens, (shape.query_width + 2 * shape.kv_width) / t, h, device, layout)
        + matmul(tokens, h, shape.query_width / t, device, layout)
        + matmul(tokens, inner / t, h, device, layout)
        + matmul(tokens, h, shape.ffn_width / t, device, layout)
    )
    local = layout.width * tokens * h / layout.sequence_split  # bytes of one activation of the model's width
    mask = tokens * h / layout.sequence_split if shape.dropout else 0
    into, out = layout.width * tokens * inner / t, layout.width * tokens * shape.ffn_width / t
    forward = (
        products
        + attention(shape, layout, device)
        + 2 * stream(2 * local, device)  # norms: read, write
        + 2 * stream(3 * local + mask, device)  # bias, dropout, residual: read two, write one, and the mask
        + stream(into + out, device)  # the MLP's activation
    )
    backward = (
        2 * products
        + attention(shape, layout, device, backward=True)
        + 2 * stream(3 * local, device)  # norms: read gradient and input, write
        + 2 * stream(2 * local + mask, device)
        + stream(2 * into + out, device)
    )
    return forward, backward


def attention(shape: Shape, layout: Layout, device: Device, backward: bool = False) -> float:
    """Seconds of scores, softmax and weighted sum, a layer and micro-batch.

    Flash attention skips the masked half and keeps scores out of memory; its backward pass makes them again, five
    products for the forward's two (arXiv:2205.14135, appendix B). Unfused, the scores pass through memory.
    """
    b, heads, d = layout.micro_batch, shape.heads / layout.tensor, shape.query_width / shape.heads
    queries, keys = shape.context / layout.context, shape.context
    if layout.attention == "flash":
        flops = 2 * b * heads * queries * keys * d / 2
        return (5 if backward else 2) * flops / rate(device, layout) + LAUNCH
    product = matmul(queries, keys, d, device, layout, b * heads) + matmul(queries, d, keys, device, layout, b * heads)
    scores = b * heads * queries * keys
    # scale, mask and softmax in one: read, write; backward: gradient and value in, one out; then dropout with its mask
    traffic = stream((3 if backward else 2) * layout.width * scores, device)
    if shape.dropout:
        traffic += stream((2 * layout.width + 1) * scores, device)
    return (2 if backward else 1) * product + traffic


def recomputed(shape: Shape, layout: Layout, device: Device, forward: float) -> float:
    """Seconds a layer and micro-batch that recomputation costs, its collectives apart."""
    if layout.recompute == "full":
        return forward
    if layout.recompute == "selective" and layout.attention == "unfused":
        return attention(shape, layout, device)
    return 0.0


def output_passes(shape: Shape, layout: Layout, device: Device) -> float:
    """Seconds of the output matrix and the cross-entropy in float32, forward and backward, a micro-batch."""
    tokens = layout.micro_batch * shape.context / layout.context
    product = matmul(tokens, shape.vocab / layout.tensor, shape.hidden, device, layout)
    return 3 * product + stream(5 * 4 * tokens * shape.vocab / layout.tensor, device)


def exposed(shape: Shape, layout: Layout, device: Device, batch: int, compute: float) -> float:
    """Seconds of data-parallel traffic that `compute` seconds of forward and backward passes do not hide.

    Overlapped: ZeRO 3 hides behind everything, ZeRO 2 behind all backward passes; else gradients wait for the last
    micro-batch's backward pass, and weights for the first one's forward pass.
    """
    gradients, weights = (one.seconds for one in communication.data(shape, layout, device, batch))
    if not layout.overlap:
        return gradients + weights
    if layout.zero == 3:
        return max(0.0, gradients + weights - compute)
    micro = compute / layout.micro_batches(batch)
    behind = compute if layout.zero == 2 else micro
    return max(0.0, gradients - behind * 2 / 3) + max(0.0, weights - micro / 3)


def optimizer_seconds(shape: Shape, layout: Layout, device: Device) -> float:
    """Adam's update of the device's share."""
    parameters = stage_parameters(shape, layout, first=layout.pipeline == 1, last=True)
    return stream(OPTIMIZER_TRAFFIC * parameters / (layout.shards if layout.zero else 1), device)


def rate(device: Device, layout: Layout) -> float:
    """FLOP/s that matrix products sustain."""
    return device.peak(layout.precision) * device.matmul_fraction


def matmul(m: float, n: float, k: float, device: Device, layout: Layout, batch: float = 1) -> float:
    """Seconds of `batch` products of an m x k and a k x n matrix."""
    traffic = layout.width * batch * (m * k + k * n + m * n) / (device.bandwidth * MEMORY_FRACTION)
    return max(2 * batch * m * n * k / rate(device, layout), traffic) + LAUNCH


def stream(moved: float, device: Device) -> float:
    """Seconds of a kernel that moves `moved` bytes and computes little."""
    return moved / (device.bandwidth * MEMORY_FRACTION) + LAUNCH
