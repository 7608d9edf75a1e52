"""Options of the commands on many runs; nothing heavy is imported here."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..planning.tables import count, quantity


def isoflop(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model isoflop`."""
    _study(parser, required=False)
    parser.add_argument("--budgets", type=quantity, nargs="+", metavar="C", help="FLOPs a run, as 1e13 3e13 1e14")
    parser.add_argument("--sizes", type=count, default=5, metavar="N", help="sizes a budget (default: 5)")
    parser.add_argument(
        "--spread", type=float, default=4.0, metavar="X", help="from 1/X to X of the middle (default: 4)"
    )
    parser.add_argument(
        "--ratio", type=quantity, default=20.0, metavar="R", help="tokens a parameter there (default: 20)"
    )
    parser.add_argument("--predict", type=quantity, metavar="C", help="budget to predict (default: 3 x the largest)")
    parser.add_argument("--draws", type=count, default=200, metavar="N", help="resamples for the intervals (200)")
    parser.add_argument("--queue", action="store_true", help="print the trials' commands instead of running them")
    parser.add_argument("--check", type=Path, nargs="+", metavar="DIR", help="checkpoints to hold the law against")


def trial(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model trial`."""
    parser.add_argument("study", type=Path, metavar="STUDY", help="folder of a queued study")
    parser.add_argument("name", metavar="NAME", help="the trial")


def search(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model search`."""
    _study(parser, required=True)
    parser.add_argument("--space", type=Path, required=True, metavar="FILE", help="YAML: what to search, and where")
    parser.add_argument("--trials", type=count, default=20, metavar="N", help="trials in all (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampler (default: 0)")
    parser.add_argument("--width", type=count, metavar="N", help="width to transfer the best learning rate to")
    parser.add_argument("--experiments", action="store_true", help="keep each trial as a DVC experiment")


def ablate(parser: argparse.ArgumentParser) -> None:
    """Options of `headwater-model ablate`."""
    _study(parser, required=True)
    parser.add_argument("--parts", type=Path, required=True, metavar="FILE", help="YAML: name -> what to set instead")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="runs a part (default: 3)")


def _study(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="folder of the study; run again, it goes on")
    parser.add_argument("--tokens", type=Path, required=required, metavar="DIR", help="tokens artefact")
    parser.add_argument("--tokenizer", type=Path, required=required, metavar="DIR", help="its tokenizer")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for all trials, as plan.context=256"
    )
    parser.add_argument(
        "--workers", type=count, default=os.cpu_count() or 1, metavar="N", help="trials at a time (default: cores)"
    )
