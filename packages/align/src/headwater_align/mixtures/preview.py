"""Command `mixture`: what the stage `instructions` would make, as tables, without writing anything."""

from __future__ import annotations

import argparse

from .._contracts import manifest
from .._contracts.config import defaults, load_section, override, parse
from ..config import InstructionsConfig
from .compose import compose


def run(args: argparse.Namespace) -> None:
    """Print the mixture's tables."""
    if args.params:
        values = load_section(args.params, "instructions", args.scale, args.set)
    else:
        values = override(defaults(InstructionsConfig), args.set)
    config = parse(InstructionsConfig, values, "instructions")
    manifest.read(args.sources, ("sources",))
    if args.items:
        manifest.read(args.items, ("items",))
    print(tables(compose(config, args.sources, args.items, lambda _: None).mixture))


def tables(mixture: dict) -> str:
    """mixture.json as Markdown tables."""
    lines = [f"{mixture['rows']} rows, {mixture['wanted']} wanted", ""]
    lines += [
        "| member | cluster | available | wanted | rows | share | epochs | held out |",
        "| --- | --- |" + " ---: |" * 6,
    ]
    lines += [
        f"| {name} | {m['cluster'] or '-'} | {m['available']} | {m['wanted']} | {m['rows']} | {m['share']:.1%} "
        f"| {m['epochs']:.2f} | {m['heldout']} |"
        for name, m in mixture["by_member"].items()
    ]
    for what in ("cluster", "kind"):
        lines += ["", f"| {what} | wanted | rows | share |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {name} | {n['wanted']:g} | {n['rows']} | {n['share']:.1%} |"
            for name, n in mixture[f"by_{what}"].items()
        ]
    for what in ("options", "shots", "dropped", "unseen"):
        counts = mixture[what] if what in mixture else mixture[f"by_{what}"]
        lines += ["", f"{what}: " + (", ".join(f"{name} {n}" for name, n in counts.items()) or "none")]
    return "\n".join(lines)
