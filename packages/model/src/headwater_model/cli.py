"""headwater-model: plan, budget, layouts, buy, pretrain, export, generate. Thin: what runs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__
from ._contracts.cli import Command
from ._contracts.cli import main as contract_main
from ._contracts.stage import Stage
from .config import ExportConfig, PlanConfig, PretrainConfig
from .planning import arguments as planning

STAGES = [
    Stage(
        name="plan",
        summary="choose model size, tokens, batch and learning rate for a compute budget",
        reads={"tokens": ("tokens",)},
        writes="plan",
        cost="a second",
        config=PlanConfig,
        run="headwater_model.plan:run",
    ),
    Stage(
        name="pretrain",
        summary="pre-train the planned model with Megatron; killed at any time, it goes on where it was",
        reads={"tokens": ("tokens",), "plan": ("plan",), "tokenizer": ("tokenizer",)},
        writes="checkpoint",
        cost="the plan's budget: minutes at scale tiny, hours on a GPU at small; about 1 GB a rank at tiny",
        config=PretrainConfig,
        run="headwater_model.pretrain:run",
    ),
    Stage(
        name="export",
        summary="write a checkpoint as a Hugging Face folder",
        reads={"checkpoint": ("checkpoint",), "tokenizer": ("tokenizer",)},
        writes="export",
        cost="seconds; memory for one copy of the weights",
        config=ExportConfig,
        run="headwater_model.export:run",
    ),
]


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="an export folder")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what the model goes on from")
    parser.add_argument("--max-tokens", type=int, default=128, metavar="N", help="new tokens at most (default: 128)")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: the likeliest (default: 0.8)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="of the K likeliest only; 0: all (default)")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="nucleus (default: 0.95)")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given several times"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same text (default: 0)")


COMMANDS = [
    Command("generate", "let a model go on from a prompt", _generate_arguments, "headwater_model.talk:generate"),
    Command(
        "budget",
        "from compute, days, money, tokens or a size to a plan, by every scaling law",
        planning.budget,
        "headwater_model.planning.budget:run",
    ),
    Command(
        "layouts",
        "the ways to train a model on some devices that fit, fastest first, with memory, time and price",
        planning.layouts,
        "headwater_model.planning.show_layouts:run",
    ),
    Command(
        "buy",
        "an API, a fine-tuned model or an own model: what each costs for a stated use, and what would change that",
        planning.buy,
        "headwater_model.planning.buy_report:run",
    ),
]


def main(argv: list[str] | None = None) -> int:
    """Console script."""
    return contract_main("headwater-model", __version__, STAGES, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
