"""`headwater-model buy`: assumptions, the three options, break-even, and what would change the verdict."""

from __future__ import annotations

import argparse
from typing import Any

from .._contracts.config import Config, defaults, load_section, override, parse, resolved
from .._contracts.manifest import canonical_json
from . import buy, hardware
from .buy import BuyConfig
from .tables import short, table, usd


def run(args: argparse.Namespace) -> None:
    """Entry point of the command."""
    values = load_section(args.params, "buy") if args.params else defaults(BuyConfig)
    config = parse(BuyConfig, override(values, args.set), "buy")
    hardware.load(config.device.name)  # refused here, with the near names
    answer = answered(config)
    print(canonical_json(answer) if args.json else text(config, answer), end="")


def answered(config: BuyConfig) -> dict[str, Any]:
    """Everything the command says, as plain values."""
    months = config.use.months
    parameters, tokens = buy.own_model(config)
    return {
        "assumptions": resolved(config),
        "options": [
            {"name": one.name, "usd": one.total(months), "once": one.once, "monthly": one.monthly, "parts": one.parts,
             "excluded": one.excluded}
            for one in buy.options(config)
        ],
        "verdict": buy.verdict(config).name,
        "break_even": {name: buy.break_even(config, name) for name in ("fine-tune", "from scratch")},
        "flips": [
            {"assumption": name, "assumed": value, "at": at, "verdict": other}
            for name, value, at, other in buy.flips(config)
        ],
        "verdict_if_sensitivity_were_otherwise": buy.if_sensitive_otherwise(config),
        "own_model": {"parameters": parameters, "tokens": tokens},
        "serving_devices": {
            "fine-tune": buy.devices_needed(config, config.use.parameters)[0],
            "from scratch": buy.devices_needed(config, parameters)[0],
        },
    }  # fmt: skip


def text(config: BuyConfig, answer: dict[str, Any]) -> str:
    """The answer for people."""
    use, own = config.use, answer["own_model"]
    kinds = list(dict.fromkeys(part for one in answer["options"] for part in one["parts"]))
    blocks = [
        "Assumptions (replace any with --set NAME=VALUE)\n"
        + table(("name", "value", "", "source"), assumptions(config)),
        f"\nUS dollars for {use.months:g} months of {short(use.tokens_in)} tokens in and {short(use.tokens_out)} out\n"
        + table(
            ("option", "in all", "at first", "a month", *kinds, ""),
            [
                (one["name"], usd(one["usd"]), usd(one["once"]), usd(one["monthly"]),
                 *(usd(one["parts"].get(part, 0.0)) for part in kinds), one["excluded"] and f"out: {one['excluded']}")
                for one in answer["options"]
            ],
        ),
        f"\nOwn model: {short(own['parameters'])} parameters on {short(own['tokens'])} tokens. Devices to serve: "
        + ", ".join(f"{count:.1f} ({name})" for name, count in answer["serving_devices"].items())
        + f" of {hardware.load(config.device.name).name} at ${buy.rent_per_hour(config):.2f} an hour",
        f"\nVerdict: {answer['verdict']}",
        *(told_break_even(name, times) for name, times in answer["break_even"].items()),
    ]  # fmt: skip
    if use.sensitive:
        blocks.append(
            "Sensitive data: an API is out, and machines cost "
            f"{config.device.usd_per_hour_sensitive:g} times the rent; set use.sensitive=false to see what that costs"
        )
    otherwise = answer["verdict_if_sensitivity_were_otherwise"]
    if otherwise != answer["verdict"]:
        blocks.append(f"With use.sensitive={'false' if use.sensitive else 'true'} the verdict would be: {otherwise}")
    if answer["flips"]:
        blocks.append(
            "\nWhat would change the verdict (within a factor of 10, nearest first)\n"
            + table(
                ("assumption", "assumed", "from", "verdict then"),
                [(f["assumption"], short(f["assumed"]), short(f["at"]), f["verdict"]) for f in answer["flips"]],
            )
        )
    else:
        blocks.append("\nNo single assumption, wrong by a factor of 10, changes the verdict")
    return "\n".join(blocks) + "\n"


def told_break_even(name: str, times: float | None) -> str:
    """One line on where an option and the API cost the same."""
    if times is None:
        return f"break-even of {name} with the API: none between a ten-thousandth and ten thousand times these tokens"
    return f"break-even of {name} with the API: at {times:.3g} times these tokens"


def assumptions(config: Config, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Every field: dotted name, value, meaning, source."""
    rows = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            rows += assumptions(value, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        source = str(extra.get("source", "")) if isinstance(extra, dict) else ""
        if value != field.default and source != "the use":
            source = "given"
        shown = short(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        rows.append((prefix + name, "none" if value is None else shown, field.description or "", source))
    return rows
