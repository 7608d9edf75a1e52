"""Console script `headwater-align`: what each stage reads, writes and costs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__
from ._contracts import cli
from ._contracts.cli import Command
from ._contracts.stage import Stage
from ._contracts.steering import steering_arguments
from .adopt.config import AdoptConfig
from .balance.config import BalanceConfig
from .config import InstructionsConfig, PpoConfig, PreferencesConfig, RewardConfig, SftConfig
from .dpo.config import DpoConfig
from .labels.stage import STAGES as LABELS
from .mixtures.arguments import mixture_arguments
from .outcome.config import OutcomeConfig
from .unseen.config import UnseenConfig

ENGINE = ("headwater_model",)

STAGES = (
    Stage(
        name="instructions",
        summary="Mix demonstrations and tasks as chat messages, split into train, held-out and unseen clusters.",
        reads={"sources": ("sources",), "items?": ("items",)},
        writes="instructions",
        cost="seconds; no network",
        config=InstructionsConfig,
        run="headwater_align.mixtures.stage:run",
    ),
    Stage(
        name="unseen",
        summary="Score models zero-shot on task clusters kept out of tuning, before and after.",
        reads={"instructions": ("instructions",), "*": ("export",)},
        writes="unseen",
        cost="one forward pass a question, with its options as branches; seconds for small models",
        config=UnseenConfig,
        run="headwater_align.unseen.stage:run",
        code=ENGINE,
    ),
    Stage(
        name="balance",
        summary="Make demonstrations in which groups stand beside the same words equally often.",
        reads={"instructions": ("instructions",), "items?": ("items",)},
        writes="instructions",
        cost="seconds; no network",
        config=BalanceConfig,
        run="headwater_align.balance.stage:run",
    ),
    Stage(
        name="preferences",
        summary="Turn sources of comparisons and people's labels into ranked answers, split by prompt.",
        reads={"sources": ("sources",), "*": ("labels",)},
        writes="preferences",
        cost="seconds; no network",
        config=PreferencesConfig,
        run="headwater_align.preferences:run",
    ),
    Stage(
        name="adopt",
        summary="Make a Hugging Face folder a base for these stages: read it, add the chat format's tokens, write it.",
        reads={},
        writes="export",
        cost="the model in memory once, twice where its vocabulary grows; no network",
        config=AdoptConfig,
        run="headwater_align.adopt.stage:run",
        code=ENGINE,
        reuse=False,  # the folder is no artefact: what it holds may have changed
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
        summary="Train a reward model on rankings, starting from the SFT model or an earlier reward model.",
        reads={
            "model": ("export",),
            "preferences": ("preferences",),
            "instructions?": ("instructions",),
            "start?": ("export",),
        },
        writes="export",
        cost="like sft, with each answer of a comparison one row",
        config=RewardConfig,
        run="headwater_align.reward.stage:run",
        code=ENGINE,
    ),
    Stage(
        name="ppo",
        summary="Train the SFT model by PPO against the reward model.",
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
    Stage(
        name="dpo",
        summary="Train a model on comparisons directly, without reward model or sampling.",
        reads={"model": ("export",), "preferences": ("preferences",), "reference?": ("export",)},
        writes="export",
        cost="like reward, and one forward pass of the reference over all answers",
        config=DpoConfig,
        run="headwater_align.dpo.stage:run",
        code=ENGINE,
    ),
    Stage(
        name="outcome",
        summary="Compare SFT, best-of-N and further models on held-out prompts: reward, KL, length, win rates.",
        reads={
            "sft": ("export",),
            "reward": ("export",),
            "instructions": ("instructions",),
            "*": ("export", "labels"),
        },
        writes="outcome",
        cost="prompts x answers for each model; best-of-N takes as many answers again as its largest N",
        config=OutcomeConfig,
        run="headwater_align.outcome.stage:run",
        code=ENGINE,
    ),
    *LABELS,
)


def _chat_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="an export with a chat tokenizer")
    parser.add_argument("--system", default="", metavar="TEXT", help="system message that opens the conversation")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="YAML file NAME: TEXT; --system is then one of its names"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="tokens an answer (default: 256, or half of a shorter context)"
    )
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: greedy (default: 0.8)")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="nucleus (default: 0.95)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the sampling (default: 1)")
    steering_arguments(parser)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    from .formats import WRITABLE

    parser.add_argument(
        "--from", dest="inputs", type=Path, nargs="+", required=True, metavar="FILE",
        help="JSONL (also .gz), JSON, Parquet or YAML; each row says by its keys which format it is in",
    )  # fmt: skip
    parser.add_argument("--to", required=True, choices=list(WRITABLE), metavar="FORMAT", help=", ".join(WRITABLE))
    parser.add_argument(
        "--best", action="store_true", help="take a comparison's best answer as a demonstration, to train SFT on"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".jsonl, .json or .parquet")


COMMANDS = (
    Command(
        "convert",
        "Turn demonstrations or comparisons from any public format into another; rejects beside, with the reason.",
        _convert_arguments,
        "headwater_align.convert:run",
    ),
    Command(
        "mixture",
        "Say what `instructions` would make, wanted against realised, without writing it.",
        mixture_arguments,
        "headwater_align.mixtures.preview:run",
    ),
    Command(
        "chat", "Talk to a model in the terminal; /quit or Ctrl-D ends.", _chat_arguments, "headwater_align.chat:run"
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script."""
    given = cli.spelled_out(sys.argv[1:] if argv is None else argv, "labels")
    return cli.main("headwater-align", __version__, STAGES, COMMANDS, given)
