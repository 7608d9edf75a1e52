"""`headwater-model budget`: from compute, days, money, tokens or a size to a plan, every law beside the others."""

from __future__ import annotations

import argparse
from typing import Any

from .._contracts.errors import UsageError
from .._contracts.manifest import canonical_json
from . import costs, hardware, overtraining, repetition
from .hardware import Device
from .scaling import LAWS, PARAMETRIC, SHOWN, Allocation, Law, Parametric
from .tables import percent, short, table, usd


def run(args: argparse.Namespace) -> None:
    """Entry point of the command."""
    device = hardware.load(args.device, replaced(args.set))
    if not 0 < args.utilisation <= 1:
        raise UsageError(f"--utilisation {args.utilisation}: a share of the peak, above 0 and at most 1")
    law, losses = LAWS[args.law], PARAMETRIC[args.loss_law]
    allocation, told = spend(args, device, law)
    plan = {
        "budget": told,
        "flops": allocation.flops,
        "law": law.name,
        "parameters": allocation.parameters,
        "tokens": allocation.tokens,
        "laws": beside(allocation.flops, losses),
        "same_budget": [vars_of(row) for row in overtraining.same_budget(losses, allocation.flops)],
        "same_loss": [vars_of(row) for row in overtraining.same_loss(losses, allocation.flops)],
        "cost": cost(allocation.flops, args.utilisation, args.devices, device),
    }
    if args.data:
        plan["data"] = limited(allocation, args.data)
    if args.served:
        plan["served"] = served(losses, allocation.flops, args.served)
    print(canonical_json(finite(plan)) if args.json else text(plan, args, device, losses), end="")


def spend(args: argparse.Namespace, device: Device, law: Law) -> tuple[Allocation, str]:
    """The question's size and tokens by `law`, and what was asked in words."""
    if args.tokens:
        parameters = law.parameters_for(args.tokens)
        return Allocation(parameters, args.tokens), f"{short(args.tokens)} tokens"
    if args.parameters:
        return Allocation(args.parameters, law.tokens_for(args.parameters)), f"{short(args.parameters)} parameters"
    if args.days:
        flops = costs.flops_of_days(args.days, args.devices, device, args.utilisation)
        told = f"{args.days:g} days on {args.devices:,} x {device.name} at {args.utilisation:.0%} of the peak"
    elif args.usd:
        flops = costs.flops_of_usd(args.usd, device, args.utilisation)
        told = f"{usd(args.usd)} for {device.name} at ${device.usd_per_hour:g} an hour, {args.utilisation:.0%} of peak"
    else:
        flops, told = args.flops, f"{args.flops:.3g} FLOPs"
    return law.optimum(flops), told


def beside(flops: float, losses: Parametric) -> list[dict[str, Any]]:
    """What each law makes of the budget, and the loss that one and the same parametric law gives it."""
    rows = []
    for name in SHOWN:
        here = LAWS[name].optimum(flops)
        rows.append({"law": name, "source": LAWS[name].source, **here._asdict(), "loss": losses.loss(*here)})
    return rows


def limited(wanted: Allocation, unique: float) -> dict[str, float]:
    """The plan where only `unique` tokens exist: as it was, and what the law of repetition would do instead."""
    best = repetition.optimum(wanted.flops, unique)
    return {
        "unique": unique,
        "epochs": wanted.tokens / unique,
        "effective_tokens": repetition.effective(unique, wanted.tokens, repetition.TOKEN_DECAY),
        "loss": repetition.loss(*wanted, unique),
        "loss_with_new_tokens": repetition.loss(*wanted, wanted.tokens),
        "best_parameters": best.parameters,
        "best_tokens": best.tokens,
        "best_epochs": best.tokens / unique,
        "best_loss": repetition.loss(*best, unique),
    }


def served(losses: Parametric, flops: float, tokens: float) -> dict[str, float]:
    """The model of the plan's loss that costs least over training and `tokens` of use."""
    optimal = losses.optimum(flops)
    best = overtraining.lifetime_optimum(losses, losses.loss(*optimal), tokens)
    before = flops + 2 * optimal.parameters * tokens
    after = best.flops + 2 * best.parameters * tokens
    return {"served": tokens, **best._asdict(), "flops": after, "saved": 1 - after / before}


def cost(flops: float, utilisation: float, devices: int, device: Device) -> dict[str, float]:
    """Days, device-hours, energy and rent."""
    here = costs.of_flops(flops, utilisation, devices, device)
    return {"days": here.days, "device_hours": here.device_hours, "kwh": here.kwh, "usd": here.usd}


def text(plan: dict[str, Any], args: argparse.Namespace, device: Device, losses: Parametric) -> str:
    """The plan for people."""
    spent = plan["cost"]
    blocks = [
        f"{plan['budget']}: {plan['flops']:.3g} FLOPs (6 N D)",
        f"by {plan['law']}: {short(plan['parameters'])} parameters, {short(plan['tokens'])} tokens",
        "\nCompute-optimal by each law; losses by "
        f"{losses.name} ({losses.source}), nats a token of its tokenizer and data\n"
        + table(
            ("law", "parameters", "tokens", "tokens/parameter", "loss"),
            [
                (r["law"], short(r["parameters"]), short(r["tokens"]), f"{r['tokens'] / r['parameters']:.1f}",
                 f"{r['loss']:.4f}")
                for r in plan["laws"]
            ],
        ),
        f"\nAnother size on the same budget ({losses.name})\n"
        + table(
            ("x optimum", "parameters", "tokens", "loss added", "compute wasted"),
            [
                (f"{r['fraction']:g}", short(r["parameters"]), short(r["tokens"]), f"{r['loss_added']:+.4f}",
                 f"{r['compute_wasted']:.1%}")
                for r in plan["same_budget"]
            ],
        ),
        f"\nAnother size trained to the same loss ({losses.name}); inference at 2 N FLOPs a token\n"
        + table(
            ("x optimum", "parameters", "tokens", "training", "inference", "pays from tokens served"),
            [
                (f"{r['fraction']:g}", short(r["parameters"]), short(r["tokens"]), percent(r["training_added"]),
                 percent(-r["inference_saved"]), short(r["break_even"]) if r["fraction"] < 1 else "-")
                for r in plan["same_loss"]
            ],
        ),
    ]  # fmt: skip
    if "data" in plan:
        d = plan["data"]
        blocks.append(
            f"\nWith {short(d['unique'])} different tokens (arXiv:2305.16264): {d['epochs']:.1f} epochs, worth "
            f"{short(d['effective_tokens'])} new ones; loss {d['loss']:.4f}, not {d['loss_with_new_tokens']:.4f}\n"
            f"best use of the budget: {short(d['best_parameters'])} parameters, {d['best_epochs']:.1f} epochs, "
            f"loss {d['best_loss']:.4f}"
        )
    if "served" in plan:
        s = plan["served"]
        blocks.append(
            f"\nServing {short(s['served'])} tokens at the same loss is cheapest with {short(s['parameters'])} "
            f"parameters on {short(s['tokens'])} tokens: {s['saved']:.1%} less in all than the compute-optimal model"
        )
    blocks.append(
        f"\nOn {args.devices:,} x {device.name} at {args.utilisation:.0%} of the peak: {spent['days']:,.1f} days, "
        f"{spent['device_hours']:,.0f} device-hours, {spent['kwh']:,.0f} kWh (PUE {costs.PUE}), {usd(spent['usd'])} "
        f"at ${device.usd_per_hour:g} an hour ({device.sources['usd_per_hour']})"
    )
    return "\n".join(blocks) + "\n"


def replaced(items: list[str]) -> dict[str, float]:
    """`--set KEY=VALUE` items as figures of a device.

    Raises:
        UsageError: an item that is none.
    """
    figures = {}
    for item in items:
        key, _, value = item.partition("=")
        try:
            figures[key] = float(value)
        except ValueError:
            raise UsageError(f"--set {item}: write KEY=NUMBER, as in --set usd_per_hour=2.1") from None
    return figures


def vars_of(row: Any) -> dict[str, Any]:
    """A row of `overtraining` as plain values."""
    values = dict(vars(row))
    return {**values.pop("allocation")._asdict(), **values}


def finite(value: Any) -> Any:
    """The same with None for what is infinite: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
