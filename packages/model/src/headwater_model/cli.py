"""headwater-model: its stages (plan, pretrain, export) and its commands. Thin: what runs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__
from ._contracts.cli import Command
from ._contracts.cli import main as contract_main
from ._contracts.stage import Stage
from ._contracts.steering import steering_arguments
from .config import ExportConfig, PlanConfig, PretrainConfig
from .planning import arguments as planning
from .studies import arguments as studies

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
        reads={
            "tokens": ("tokens",),
            "plan": ("plan",),
            "tokenizer": ("tokenizer",),
            "start?": ("export", "checkpoint"),
            "flight?": ("checkpoint",),
            "*": ("tokens",),
        },
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
    steering_arguments(parser)


def _steer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as optimizer.lr=0.001; none: print what is"
    )
    parser.add_argument("--why", default="", metavar="TEXT", help="for the flight log")
    parser.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="the run's work (default: work)")


def _presets_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON: what each name pins, and its source")


def _check_nodes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("nodes.json"), metavar="FILE", help="node list, updated")
    parser.add_argument(
        "--device", metavar="NAME", help="in planning/hardware.yaml, as h100-sxm: its matmul speed is due"
    )
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of matrix products (default: 2)")
    parser.add_argument("--memory-gb", type=float, default=0.25, metavar="GB", help="a rank needs (default: 0.25)")
    parser.add_argument("--disk", type=Path, default=Path(), metavar="DIR", help="of the checkpoints (default: here)")
    parser.add_argument("--checkpoint-gb", type=float, default=1.0, metavar="GB", help="to fit there (default: 1)")
    parser.add_argument("--clock-s", type=float, default=0.5, metavar="S", help="clocks may differ by (default: 0.5)")


COMMANDS = [
    Command("generate", "let a model go on from a prompt", _generate_arguments, "headwater_model.talk:generate"),
    Command(
        "presets",
        "published models by name: shape, parameters as counted and as published",
        _presets_arguments,
        "headwater_model.presets:run",
    ),
    Command(
        "check-nodes",
        "is every node fit to train on: matmul, memory, link, disk, clock; under torchrun or srun, or alone",
        _check_nodes_arguments,
        "headwater_model.nodes:run",
    ),
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
    Command(
        "steer",
        "change a run that is under way: learning rate, optimiser, schedule, batch, activation",
        _steer_arguments,
        "headwater_model.steering:steer",
    ),
    Command(
        "isoflop",
        "own scaling laws: a grid of small runs, the law with intervals, a prediction to check later",
        studies.isoflop,
        "headwater_model.studies.isoflop:command",
    ),
    Command(
        "search",
        "hyperparameters by Optuna on a small proxy, the learning rate transferred by width",
        studies.search,
        "headwater_model.studies.search:command",
    ),
    Command(
        "ablate",
        "what each part of a recipe is worth: trained without it, over seeds, with intervals",
        studies.ablate,
        "headwater_model.studies.ablate:command",
    ),
    Command("trial", "run one trial of a queued study", studies.trial, "headwater_model.studies.trial:command"),
]


def main(argv: list[str] | None = None) -> int:
    """Console script."""
    return contract_main("headwater-model", __version__, STAGES, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
