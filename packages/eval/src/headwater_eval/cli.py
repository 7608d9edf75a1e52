"""`headwater-eval`: the stages of this package, and `run` for any model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__, fetch, listing
from ._contracts.cli import Command, spelled_out
from ._contracts.cli import main as run_cli
from ._contracts.stage import Stage
from .compare.stage import STAGE as COMPARE
from .config import CompressorConfig, EvaluateConfig, ItemsConfig, ToxicityConfig
from .leakage.stage import STAGE as LEAKAGE
from .model_card.stage import STAGE as MODEL_CARD
from .prompting_config import BUILT_IN as SYSTEM_PROMPTS
from .report.stage import STAGE as REPORT
from .review.stage import STAGES as REVIEW

STAGES = [
    Stage(
        name="items",
        summary="Bring the benchmark files of the sources into one schema.",
        reads={"sources": ("sources",)},
        writes="items",
        cost="seconds; memory for one benchmark",
        config=ItemsConfig,
        run="headwater_eval.items:run",
    ),
    Stage(
        name="toxicity",
        summary="Train or adopt a local classifier of toxic text, and measure its error.",
        reads={"sources": ("sources",)},
        writes="classifier",
        cost="about a minute for 15,000 texts; memory under 1 GB",
        config=ToxicityConfig,
        run="headwater_eval.toxicity.train:run",
    ),
    Stage(
        name="compressor",
        summary="Measure how well statistical compressors predict the held-out text after the training text.",
        reads={"corpus": ("corpus",)},
        writes="results",
        cost="about 5 s per 10 MB of text and compressor; memory_mb for each PPMd at work",
        config=CompressorConfig,
        run="headwater_eval.compressor:run",
    ),
    Stage(
        name="evaluate",
        summary="Score a model on benchmarks, bias and held-out text, and let it write samples.",
        reads={
            "model": ("export",),
            "items": ("items",),
            "corpus": ("corpus",),
            "overlap?": ("documents",),
            "toxicity?": ("classifier",),
        },
        writes="results",
        cost="under a minute a model of 5 M parameters on 2 cores; memory about 1 GB beside the model",
        config=EvaluateConfig,
        run="headwater_eval.evaluate:run",
        code=("headwater_model",),
    ),
    LEAKAGE,
    COMPARE,
    *REVIEW,
    MODEL_CARD,
    REPORT,
]


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR|NAME",
        help="folder (export, checkpoint, Hugging Face) or a backend of lm-eval (hf, vllm, ...)",
    )
    parser.add_argument("--model-args", default="", metavar="K=V,...", help="arguments of lm-eval's backend")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="folder of a checkpoint's tokenizer")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tasks", metavar="A,B", help="benchmarks by name")
    what.add_argument(
        "--suite",
        metavar="NAME",
        help="benchmarks of a suite (headwater-eval tasks --help names them), as far as there are items",
    )
    parser.add_argument("--items", type=Path, required=True, metavar="DIR", help="folder of TASK.jsonl files")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="corpus artefact, for held-out text (default: none)")
    parser.add_argument(
        "--toxicity",
        type=Path,
        metavar="DIR",
        help="classifier of toxic text (headwater-eval toxicity makes one; default: none)",
    )
    parser.add_argument(
        "--shots", type=_shots, default=0, metavar="N", help="solved examples, or usual: each task's own (default: 0)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="items of a task (default: all)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results shall be")
    parser.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="progress (default: work)")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="finished requests, or none (default: WORK/requests.sqlite; for what is served under a "
        "name, whose weights nobody here can see, none)",
    )
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes that share the requests")
    parser.add_argument("--dtype", default="float32", metavar="TYPE", help="float32 or bfloat16 (default: float32)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads a process (default: 1)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="rows, of lm-eval's backends")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other of evaluate's")


def _prompts_arguments(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    parser.add_argument(
        "--prompts",
        type=Path,
        default=SYSTEM_PROMPTS,
        metavar="FILE",
        help="YAML file of NAME: TEXT, the first to compare with (default: none, respectful, biased of InstructGPT)",
    )
    parser.add_argument(
        "--format",
        choices=("plain", "chat"),
        default="plain",
        help="plain: before the question as text; chat: as a system message, for chat models (default: plain)",
    )


def _shots(text: str) -> int | str:
    if text == "usual" or text.isdecimal():
        return text if text == "usual" else int(text)
    raise argparse.ArgumentTypeError(f"{text}: a number, or usual")


COMMANDS = [
    Command("run", "Score any model on named tasks or a suite.", _run_arguments, "headwater_eval.run:main"),
    Command("prompts", "Score a model under each of several system prompts, and compare.", _prompts_arguments,
            "headwater_eval.prompts:main"),
    Command("tasks", "List the benchmarks: what each measures, and whether its data is here.", listing.arguments,
            "headwater_eval.listing:run"),
    Command("fetch", "Copy rows of benchmarks from the hub or its cache into files.", fetch.arguments,
            "headwater_eval.fetch:run"),
]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script."""
    given = spelled_out(sys.argv[1:] if argv is None else argv, "review")
    return run_cli("headwater-eval", __version__, STAGES, COMMANDS, given)


if __name__ == "__main__":  # torchrun -m headwater_eval.cli
    raise SystemExit(main())
