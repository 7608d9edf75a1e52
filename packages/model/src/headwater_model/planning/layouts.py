"""How ranks share a model: tensor x pipeline x context x data parallel, and the rules a layout must obey.

Ranks are numbered as Megatron does (arXiv:2104.04473, section 3): tensor innermost, then context, data, pipeline, so
the dimension that talks most lies within a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .shapes import Shape

Recompute = Literal["none", "selective", "full"]
Precision = Literal["bfloat16", "float32"]
Attention = Literal["flash", "unfused"]
BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Layout:
    """One way to train: degrees, micro-batch, and what is kept, sharded and recomputed."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    data: int = 1
    micro_batch: int = 1
    """Sequences of one forward pass of one data-parallel rank."""
    interleave: int = 1
    """Model chunks a pipeline rank holds (virtual pipeline, arXiv:2104.04473, section 2.2.2)."""
    sequence_parallel: bool = True
    """Norms and dropout are split along the sequence over the tensor ranks (arXiv:2205.05198, section 4.2.2)."""
    zero: int = 1
    """What data and context ranks shard: 0 nothing, 1 optimiser state, 2 gradients too, 3 weights too
    (ZeRO, arXiv:1910.02054; 1 is Megatron's distributed optimiser, 3 is FSDP)."""
    recompute: Recompute = "selective"
    """full: only each layer's input is kept; selective: the scores of attention are made again
    (arXiv:2205.05198, section 5). With flash attention selective keeps the same as none."""
    precision: Precision = "bfloat16"
    attention: Attention = "flash"
    """flash: scores never reach memory and the masked half is skipped; unfused: they do, and it is not."""
    gradients: Precision = "float32"
    """In which gradients are summed and reduced; Megatron's default for bfloat16 training is float32."""
    overlap: bool = True
    """Gradients are reduced, and ZeRO's shards gathered, while the passes compute."""

    @property
    def width(self) -> int:
        """Bytes of an activation or weight."""
        return BYTES[self.precision]

    @property
    def gradient_width(self) -> int:
        """Bytes of a gradient."""
        return max(self.width, BYTES[self.gradients])

    @property
    def devices(self) -> int:
        """Ranks in all."""
        return self.tensor * self.pipeline * self.context * self.data

    @property
    def shards(self) -> int:
        """Ranks over which ZeRO splits."""
        return self.data * self.context

    @property
    def sequence_split(self) -> int:
        """Into how many parts the sequence is cut where tensor ranks do not split the width."""
        return self.tensor if self.sequence_parallel else 1

    def micro_batches(self, batch: int) -> int:
        """Micro-batches a step and data-parallel rank."""
        return batch // (self.data * self.micro_batch)

    @property
    def label(self) -> str:
        """Short and unique: `tp8 pp4x2 dp16 mb1 zero1 full`."""
        parts = [f"tp{self.tensor}"] if self.tensor > 1 else []
        if self.pipeline > 1:
            parts.append(f"pp{self.pipeline}" + (f"x{self.interleave}" if self.interleave > 1 else ""))
        parts += [f"cp{self.context}"] if self.context > 1 else []
        parts += [f"dp{self.data}", f"mb{self.micro_batch}"]
        parts += [f"zero{self.zero}"] if self.zero else []
        parts += [self.recompute] if self.recompute != "none" else []
        return " ".join(parts)


def violations(layout: Layout, shape: Shape, batch: int, node: int) -> list[str]:
    """Why a layout cannot run, as short phrases; [] if it can.

    Args:
        batch: sequences a step, of all data-parallel ranks.
        node: devices a node; tensor ranks must lie within one (arXiv:2104.04473, takeaway 1).
    """
    t, p, c = layout.tensor, layout.pipeline, layout.context
    found = []
    for value, parts, name, over in (
        (shape.heads, t, "heads", "tensor"),
        (shape.kv_heads or shape.heads, t, "kv_heads", "tensor"),
        (shape.ffn_width, t, "ffn", "tensor"),
        (shape.vocab, t, "vocab", "tensor"),
        (shape.layers, p * layout.interleave, "layers", "pipeline" + " x interleave" * (layout.interleave > 1)),
        (shape.context, 2 * c if c > 1 else 1, "context", "2 x context ranks"),
        (shape.context // c, layout.sequence_split, "context a rank", "tensor (sequence parallel)"),
        (batch, layout.data * layout.micro_batch, "batch", "data x micro-batch"),
    ):  # fmt: skip
        if value % parts:
            found.append(f"{name} {value} is no multiple of {over} {parts}")
    if t > node:
        found.append(f"tensor {t} reaches beyond a node of {node}")
    if layout.interleave > 1 and p == 1:
        found.append("interleave needs pipeline ranks")
    if layout.interleave > 1 and p > 1 and layout.micro_batches(batch) % p:
        found.append(f"interleaved micro-batches {layout.micro_batches(batch)} are no multiple of pipeline {p}")
    if layout.zero > 1 and p > 1:
        found.append("ZeRO 2 and 3 would reduce or gather at every micro-batch of a pipeline")
    if layout.attention == "flash" and layout.recompute == "selective":
        found.append("flash attention leaves nothing to recompute selectively")
    return found


@dataclass(frozen=True)
class Search:
    """Which layouts to try."""

    devices: int
    batch: int
    node: int
    micro_batches: Sequence[int] = (1, 2, 4, 8, 16, 32)
    interleaves: Sequence[int] = (1, 2, 4)
    zero: Sequence[int] = (1,)
    recompute: Sequence[Recompute] = ("none", "full")
    max_tensor: int = 64
    max_pipeline: int = 256
    max_context: int = 1
    precision: Precision = "bfloat16"
    attention: Attention = "flash"
    overlap: bool = True


def enumerate_layouts(shape: Shape, search: Search, refused: Counter[str] | None = None) -> Iterator[Layout]:
    """Every layout on exactly `search.devices` devices that obeys the rules, each once.

    Args:
        refused: is filled with how many layouts each rule refused.
    """
    n = search.devices
    for t in _divisors(n, min(search.max_tensor, search.node)):
        for p in _divisors(n // t, min(search.max_pipeline, shape.layers)):
            for c in _divisors(n // (t * p), search.max_context):
                d = n // (t * p * c)
                for micro_batch in search.micro_batches:
                    for interleave in search.interleaves if p > 1 else (1,):
                        for zero in search.zero if d * c > 1 else (0,):
                            for recompute in search.recompute:
                                layout = Layout(
                                    t, p, c, d, micro_batch, interleave, t > 1, zero, recompute,
                                    search.precision, search.attention, overlap=search.overlap,
                                )  # fmt: skip
                                faults = violations(layout, shape, search.batch, search.node)
                                if not faults:
                                    yield layout
                                elif refused is not None:
                                    refused[faults[0]] += 1


def _divisors(n: int, at_most: int) -> list[int]:
    return [k for k in range(1, min(n, at_most) + 1) if n % k == 0]
