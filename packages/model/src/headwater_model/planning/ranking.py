"""The layouts that fit on some devices, fastest first, each with what holds it back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from . import communication, costs, memory, throughput
from .hardware import Device
from .layouts import Layout, Search, enumerate_layouts
from .shapes import Shape

PARTS = {
    "recompute": "recomputation",
    "tensor": "tensor-parallel collectives",
    "context": "passing keys and values on",
    "pipeline": "transfers between stages",
    "bubble": "the pipeline's bubble",
    "data": "reducing gradients",
    "optimizer": "the optimiser",
}


@dataclass(frozen=True)
class Candidate:
    """A layout that fits, with its predictions."""

    layout: Layout
    memory: memory.Memory
    step: throughput.Step
    tokens_per_second: float
    utilisation: float
    """Of the devices' peak by the model's FLOPs; the masked half of the scores not counted."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """What a search found."""

    candidates: list[Candidate]
    """Fastest first; of each choice of degrees only the best variant."""
    tried: int
    """Layouts that obey the rules."""
    too_large: int
    """Of these, how many do not fit."""
    smallest: float
    """Bytes a device of the layout that needs least."""
    refused: Counter[str] = field(default_factory=Counter)
    """Rule -> layouts that it refused."""


def rank(shape: Shape, search: Search, device: Device, top: int = 10) -> Ranking:
    """The fastest `top` layouts that fit on `search.devices` devices.

    Equal speed: the one that needs less memory first, then by name, so that the order is always the same.
    """
    refused: Counter[str] = Counter()
    best: dict[tuple[int, int, int, int], Candidate] = {}
    tried = too_large = 0
    smallest = float("inf")
    for layout in enumerate_layouts(shape, search, refused):
        tried += 1
        needed = memory.estimate(shape, layout, search.batch)
        smallest = min(smallest, needed.total)
        if not memory.fits(needed, device):
            too_large += 1
            continue
        found = candidate(shape, layout, device, search.batch, needed)
        degrees = (layout.tensor, layout.pipeline, layout.context, layout.data)
        if degrees not in best or _order(found) < _order(best[degrees]):
            best[degrees] = found
    return Ranking(sorted(best.values(), key=_order)[:top], tried, too_large, smallest, refused)


def candidate(
    shape: Shape, layout: Layout, device: Device, batch: int, needed: memory.Memory | None = None
) -> Candidate:
    """Predictions for one layout."""
    needed = needed or memory.estimate(shape, layout, batch)
    step = throughput.step(shape, layout, device, batch)
    return Candidate(
        layout,
        needed,
        step,
        throughput.tokens_per_second(shape, batch, step),
        throughput.utilisation(shape, layout, device, batch, step),
        reasons(shape, layout, device, batch, needed, step),
    )


def reasons(
    shape: Shape, layout: Layout, device: Device, batch: int, needed: memory.Memory, step: throughput.Step
) -> tuple[str, ...]:
    """What fills the memory, what takes the time beside computing, and the slowest link."""
    parts = {name: getattr(needed, name) for name in ("weights", "gradients", "optimizer", "activations")}
    largest = max(parts, key=lambda name: parts[name])
    told = [f"{needed.total / device.memory:.0%} of the memory, {parts[largest] / needed.total:.0%} of it {largest}"]
    lost = sorted(((step.share(part), name) for part, name in PARTS.items()), reverse=True)
    told += [f"{share:.1%} of the time {name}" for share, name in lost[:2] if share >= 0.005]
    sent = max(communication.traffic(shape, layout, device, batch), key=lambda one: one.seconds, default=None)
    if sent is not None:
        link = "network" if sent.network else "node's links"
        told.append(f"most is sent for {sent.purpose}: {sent.bytes / 1e9:.3g} GB a device and step over the {link}")
    return tuple(told)


def as_values(one: Candidate, device: Device, tokens: float | None = None) -> dict[str, Any]:
    """A candidate as plain values: degrees, bytes, seconds by part, cost of the run if `tokens` is given."""
    layout = one.layout
    values: dict[str, Any] = {
        "layout": layout.label,
        "tensor": layout.tensor,
        "pipeline": layout.pipeline,
        "interleave": layout.interleave,
        "context": layout.context,
        "data": layout.data,
        "micro_batch": layout.micro_batch,
        "sequence_parallel": layout.sequence_parallel,
        "zero": layout.zero,
        "recompute": layout.recompute,
        "memory_gb": one.memory.total / 1e9,
        "tokens_per_second": one.tokens_per_second,
        "utilisation": one.utilisation,
        "step_seconds": one.step.total,
        "bubble": one.step.share("bubble"),
        "reasons": "; ".join(one.reasons),
    }
    if tokens:
        spent = costs.of_seconds(tokens / one.tokens_per_second, layout.devices, device)
        values |= {"days": spent.days, "usd": spent.usd, "kwh": spent.kwh}
    return values


def none_fits(found: Ranking, device: Device, devices: int) -> str:
    """Why there is no layout, in one line."""
    if not found.tried:
        rule = found.refused.most_common(1)[0][0] if found.refused else "no number of devices divides it"
        return f"no layout of {devices} devices obeys the rules ({rule}); change the devices or the batch"
    return (
        f"none of {found.tried} layouts fits: the smallest needs {found.smallest / 1e9:.1f} GB a device, "
        f"{device.name} has {memory.usable(device) / 1e9:.1f} GB to use; take more devices, larger ones, or ZeRO 3"
    )


def _order(found: Candidate) -> tuple[float, float, str]:
    return -found.tokens_per_second, found.memory.total, found.layout.label
