"""Console script `headwater-align`: what each stage reads, writes and costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import __version__
from ._contracts import cli
from ._contracts.cli import Command
from ._contracts.stage import Stage
from .config import InstructionsConfig, PpoConfig, PreferencesConfig, RewardConfig, SftConfig

ENGINE = ("headwater_model",)

STAGES = (
    Stage(
        name="instructions",
        summary="Turn sources of demonstrations into chat messages, split into train and held-out by prompt.",
        reads={"sources": ("sources",), "items?": ("items",)},
        writes="instructions",
        cost="seconds; no network",
        config=InstructionsConfig,
        run="headwater_align.instructions:run",
    ),
    Stage(
        name="preferences",
        summary="Turn sources of comparisons into prompt, chosen and rejected answer, split by prompt.",
        reads={"sources": ("sources",)},
        writes="preferences",
        cost="seconds; no network",
        config=PreferencesConfig,
        run="headwater_align.preferences:run",
    ),
    Stage(
        name="sft",
        summary="Fine-tune a model on demonstrations, with the loss on the assistant's tokens only.",
        reads={"model": ("export",), "instructions": ("instructions",)},
        writes="export",
        cost="about 3 forward passes a token and epoch; memory of 16 bytes a parameter and one micro-batch",
        config=SftConfig,
        run="headwater_align.sft:run",
        code=ENGINE,
    ),
    Stage(
        name="reward",
        summary="Train a reward model on comparisons, starting from the SFT model.",
        reads={"model": ("export",), "preferences": ("preferences",)},
        writes="export",
        cost="like sft, with two answers a pair",
        config=RewardConfig,
        run="headwater_align.reward:run",
        code=ENGINE,
    ),
    Stage(
        name="ppo",
        summary="Train the SFT model by PPO against the reward model, and compare both on held-out prompts.",
        reads={
            "policy": ("export",),
            "reward": ("export",),
            "instructions": ("instructions",),
            "tokens?": ("tokens",),
            "reference?": ("export",),
        },
        writes="export",
        cost="four models in memory, two of them trained; most of the time is sampling and updating",
        config=PpoConfig,
        run="headwater_align.ppo.stage:run",
        code=ENGINE,
    ),
)


def _chat_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="an export with a chat tokenizer")
    parser.add_argument("--system", default="", metavar="TEXT", help="system message that opens the conversation")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="tokens an answer (default: 256, or half of a shorter context)"
    )
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: greedy (default: 0.8)")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="nucleus (default: 0.95)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the sampling (default: 1)")
    parser.add_argument("--block", type=Path, metavar="FILE", help="words and phrases never to write, one a line")
    parser.add_argument("--expert", type=Path, metavar="DIR", help="export whose logits are added (DExperts)")
    parser.add_argument("--anti-expert", type=Path, metavar="DIR", help="export whose logits are taken away")
    parser.add_argument("--alpha", type=float, metavar="A", help="weight of expert less anti-expert (default: 2.0)")


COMMANDS = (
    Command(
        "chat", "Talk to a model in the terminal; /quit or Ctrl-D ends.", _chat_arguments, "headwater_align.chat:run"
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script."""
    return cli.main("headwater-align", __version__, STAGES, COMMANDS, argv)
