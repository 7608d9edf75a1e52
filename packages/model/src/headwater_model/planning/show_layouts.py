"""`headwater-model layouts`: the ways to train a model on some devices, fastest first, and why."""

from __future__ import annotations

import argparse
from typing import Any

from .._contracts.errors import UsageError, UserError
from .._contracts.manifest import canonical_json
from . import communication, costs, hardware, memory, ranking
from .budget import replaced
from .hardware import Device
from .layouts import Search
from .ranking import Ranking
from .shapes import Shape
from .tables import short, table, usd


def run(args: argparse.Namespace) -> None:
    """Entry point of the command."""
    device = hardware.load(args.device, replaced(args.set))
    shape = shape_of(args)
    search = Search(
        args.devices, args.batch, device.node, zero=args.zero, max_context=args.max_context,
        attention="unfused" if args.unfused else "flash",
        recompute=("none", "selective", "full") if args.unfused else ("none", "full"),
    )  # fmt: skip
    found = ranking.rank(shape, search, device, args.top)
    if args.json:
        rows = [ranking.as_values(one, device, args.tokens) for one in found.candidates]
        print(canonical_json({"layouts": rows, "tried": found.tried, "too_large": found.too_large}), end="")
    elif found.candidates:
        print(text(found, shape, search, device, args.tokens), end="")
    if not found.candidates:
        raise UserError(ranking.none_fits(found, device, args.devices))


def shape_of(args: argparse.Namespace) -> Shape:
    """The model of the command line.

    Raises:
        UsageError: heads that do not divide.
    """
    if args.hidden % args.heads or args.heads % (args.kv_heads or args.heads):
        raise UsageError(f"--heads {args.heads} must divide --hidden {args.hidden}, and --kv-heads must divide --heads")
    sizes: dict[str, Any] = dict(
        layers=args.layers, hidden=args.hidden, heads=args.heads, vocab=args.vocab, context=args.context,
        kv_heads=args.kv_heads,
    )  # fmt: skip
    if args.gpt2:
        return Shape(**sizes, ffn=args.ffn)
    ffn = args.ffn or -(-args.hidden * 8 // 3 // 64) * 64
    return Shape(
        **sizes, ffn=ffn, gated=True, biases=False, learned_positions=False, tied=args.tied, dropout=False
    )  # fmt: skip


def text(found: Ranking, shape: Shape, search: Search, device: Device, tokens: float | None) -> str:
    """The ranking for people: the layouts, why, and what the best one sends."""
    rows = []
    for one in found.candidates:
        row = [
            one.layout.label, f"{one.memory.total / 1e9:.1f}", f"{one.tokens_per_second:,.0f}",
            f"{one.utilisation:.1%}", f"{one.step.total:.3g}", f"{one.step.share('bubble'):.1%}",
        ]  # fmt: skip
        if tokens:
            spent = costs.of_seconds(tokens / one.tokens_per_second, search.devices, device)
            row += [f"{spent.days:,.1f}", usd(spent.usd), f"{spent.kwh:,.0f}"]
        rows.append(row)
    heads = ["layout", "GB", "tokens/s", "utilisation", "s/step", "bubble"]
    best = found.candidates[0]
    sent = communication.traffic(shape, best.layout, device, search.batch)
    blocks = [
        f"{short(shape.parameters)} parameters on {search.devices:,} x {device.name}, {search.batch:,} sequences of "
        f"{shape.context:,} a step; {memory.usable(device) / 1e9:.1f} GB usable of each",
        table([*heads, "days", "price", "kWh"] if tokens else heads, rows),
        "\n" + "\n".join(f"{one.layout.label}: {'; '.join(one.reasons)}" for one in found.candidates),
    ]
    if sent:
        blocks.append(
            f"\nWhat a device of {best.layout.label} sends in a step\n"
            + table(
                ("for", "GB", "link", "GB/s reached", "seconds"),
                [
                    (one.purpose, f"{one.bytes / 1e9:.2f}", "network" if one.network else "node",
                     f"{one.bandwidth / 1e9:.1f}", f"{one.seconds:.3f}")
                    for one in sent
                ],
            )
        )  # fmt: skip
    refused = sum(found.refused.values())
    blocks.append(
        f"\n{found.tried:,} layouts obey the rules, {found.too_large:,} of them do not fit; {refused:,} were refused"
        + (f", most since {found.refused.most_common(1)[0][0]}" if refused else "")
    )
    return "\n".join(blocks) + "\n"
