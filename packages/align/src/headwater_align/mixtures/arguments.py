"""What the command `mixture` takes; apart, so that the command line loads nothing else for it."""

from __future__ import annotations

import argparse
from pathlib import Path


def mixture_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes: the stage's own parameters and inputs."""
    parser.add_argument("--params", type=Path, metavar="FILE", help="params.yaml; its section `instructions` counts")
    parser.add_argument("--scale", metavar="NAME", help="preset configs/NAME.yaml (default: `scale` in the params)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one parameter")
    parser.add_argument("--sources", type=Path, required=True, metavar="DIR", help="a sources artefact")
    parser.add_argument(
        "--items", type=Path, metavar="DIR", help="an items artefact: rows that hold an item are refused"
    )
