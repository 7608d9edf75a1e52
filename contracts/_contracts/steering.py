"""How a command that writes text is told to steer it: headwater-model heeds these, other packages' commands take them.

Declared here so that a command line can be read without the engine. docs/evaluate-steering.md says what each does.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def steering_arguments(parser: argparse.ArgumentParser) -> None:
    """--block, --expert, --anti-expert, --alpha, --rerank and --judge."""
    parser.add_argument("--block", type=Path, metavar="FILE", help="words and phrases never to write, one a line")
    parser.add_argument("--expert", type=Path, metavar="DIR", help="export whose logits are added (DExperts)")
    parser.add_argument("--anti-expert", type=Path, metavar="DIR", help="export whose logits are taken away")
    parser.add_argument("--alpha", type=float, metavar="A", help="weight of expert less anti-expert (default: 2.0)")
    parser.add_argument(
        "--rerank", type=int, metavar="N", help="write N texts, keep the one that the judge scores lowest"
    )
    parser.add_argument(
        "--judge",
        metavar="MODULE:FUNCTION[=DIR]",
        help="what scores texts, as headwater_eval.toxicity.judge:load=DIR, DIR being made by headwater-eval toxicity",
    )
