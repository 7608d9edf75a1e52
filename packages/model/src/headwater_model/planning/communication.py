"""What every dimension of a layout sends, over which link, and how long that takes before anything hides it.

Volumes: tensor parallelism as in arXiv:1909.08053 (two all-reduces a layer and pass), sequence parallelism as in
arXiv:2205.05198, pipeline with the scatter/gather of arXiv:2104.04473, section 4.1, context as ring attention
(arXiv:2310.01889), data as ring all-reduce or ZeRO (arXiv:1910.02054, section 7).
"""

from __future__ import annotations

from dataclasses import dataclass

from .hardware import Device
from .layouts import Layout
from .memory import stage_parameters
from .shapes import Shape

LINK_FRACTION = 0.75
"""Of a link's bandwidth, what large collectives reach; an assumption."""
LATENCY = 20e-6
"""Seconds that a collective or transfer takes whatever its size; an assumption."""


@dataclass(frozen=True)
class Traffic:
    """What one device sends in one step for one purpose."""

    purpose: str
    bytes: float
    messages: float
    bandwidth: float
    """Bytes/s reached, one direction."""
    network: bool
    """Whether it leaves the node."""

    @property
    def seconds(self) -> float:
        """Time that it takes if nothing hides it."""
        return self.bytes / self.bandwidth + self.messages * LATENCY if self.messages else 0.0


def tensor(shape: Shape, layout: Layout, device: Device, batch: int) -> Traffic:
    """Two all-reduces a layer forward and two backward; full recomputation does the forward's again.

    Sequence parallelism makes of each an all-gather and a reduce-scatter of the same bytes. One more for the output
    layer's input gradient.
    """
    t, m = layout.tensor, layout.micro_batches(batch)
    collectives = m * ((6 if layout.recompute == "full" else 4) * shape.layers / layout.pipeline + 1) if t > 1 else 0
    each = 2 * (t - 1) / t * _hidden(shape, layout)
    return Traffic("tensor", collectives * each, collectives, *_link(layout, device, t, t))


def context(shape: Shape, layout: Layout, device: Device, batch: int) -> Traffic:
    """Keys and values round the ring forward; they and their gradients backward."""
    c, t = layout.context, layout.tensor
    passes = layout.micro_batches(batch) * shape.layers / layout.pipeline * (c - 1)
    passes *= 2 if layout.recompute == "full" else 1
    each = layout.width * layout.micro_batch * shape.context / c * 2 * shape.kv_width / t
    return Traffic("context", 3 * passes * each, 2 * passes, *_link(layout, device, t * c, max(1, device.node // t)))


def pipeline(shape: Shape, layout: Layout, device: Device, batch: int) -> Traffic:
    """One tensor in and one out of each chunk, forward and backward; tensor ranks each carry their part."""
    sent = 2 * layout.interleave * layout.micro_batches(batch) if layout.pipeline > 1 else 0
    return Traffic(
        "pipeline", sent * _hidden(shape, layout) / layout.tensor, sent, *_link(layout, device, layout.devices, 1)
    )


def data(shape: Shape, layout: Layout, device: Device, batch: int) -> tuple[Traffic, Traffic]:
    """Gradients reduced, and weights gathered, over data and context ranks.

    ZeRO 0 all-reduces gradients; 1 scatters their sums and gathers weights once a step; 2 scatters at every
    micro-batch; 3 also gathers weights at every micro-batch, forward and backward. A ring uses the network cards of
    all its members in a node.
    """
    ranks, m = layout.shards, layout.micro_batches(batch)
    held = stage_parameters(shape, layout, first=layout.pipeline == 1, last=True) * (ranks - 1) / ranks
    members = min(ranks, max(1, device.node // layout.tensor))
    link = _link(layout, device, layout.tensor * ranks, members)
    reductions = 0 if ranks == 1 else (2 if layout.zero == 0 else 1) * (m if layout.zero >= 2 else 1)
    gathers = 0 if ranks == 1 or layout.zero == 0 else 2 * m if layout.zero == 3 else 1
    width = layout.width if layout.zero == 3 else layout.gradient_width
    return (
        Traffic("gradients", reductions * held * width, reductions, *link),
        Traffic("weights", gathers * held * layout.width, gathers, *link),
    )


def traffic(shape: Shape, layout: Layout, device: Device, batch: int) -> list[Traffic]:
    """All of it; purposes that send nothing are left out."""
    every = [
        tensor(shape, layout, device, batch),
        context(shape, layout, device, batch),
        pipeline(shape, layout, device, batch),
        *data(shape, layout, device, batch),
    ]
    return [one for one in every if one.bytes]


def _hidden(shape: Shape, layout: Layout) -> float:
    """Bytes of one micro-batch's activations between layers."""
    return layout.width * layout.micro_batch * shape.context / layout.context * shape.hidden


def _link(layout: Layout, device: Device, span: int, members: int) -> tuple[float, bool]:
    """Bandwidth of a ring and whether it leaves the node.

    Args:
        span: ranks from the group's first to its last.
        members: of the group that share a node, and so its network cards.
    """
    if span <= device.node:
        return device.node_link * LINK_FRACTION, False
    return min(device.node_link, device.network * members) * LINK_FRACTION, True
