"""headwater-tokenizer: corpus to tokenizer to token dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headwater_tokenizer import __version__
from headwater_tokenizer._contracts import cli
from headwater_tokenizer._contracts.cli import Command
from headwater_tokenizer._contracts.stage import Stage
from headwater_tokenizer.compare.config import CompareConfig
from headwater_tokenizer.config import AdoptConfig, EncodeConfig, MergeConfig, SubsetConfig, TrainConfig


def _peek_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokens", type=Path, metavar="DIR", help="a token dataset")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="the tokenizer of its ids")
    parser.add_argument("--split", default="train", choices=("train", "heldout"))
    parser.add_argument("--document", type=int, default=0, metavar="N", help="first document shown, from 0")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many")
    parser.add_argument("--tokens-shown", type=int, default=200, metavar="N", help="tokens of each at most")
    parser.add_argument("--cut", action="store_true", help="show where tokens end, by |")


def _view_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", type=Path, action="append", required=True, metavar="DIR",
                        help="a folder with tokenizer.json; as many as shall be compared")  # fmt: skip
    parser.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text (default: standard input)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page, HTML; replaced if it is there")
    parser.add_argument("--terminal", action="store_true", help="print the text with coloured backgrounds")


STAGES = [
    Stage(
        name="train",
        summary="Learn a tokenizer from a sample of the corpus, by any of nine algorithms.",
        reads={"corpus": ("corpus",)},
        writes="tokenizer",
        cost="about 0.3 CPU seconds and 5 MB of memory a megabyte of sample; the sample is capped by sample_bytes",
        config=TrainConfig,
        section="tokenizer",  # `train` alone would say too little among the params of a whole lineage
        run="headwater_tokenizer.train:train",
    ),
    Stage(
        name="adopt",
        summary="Take an existing tokenizer (tiktoken ranks, tokenizer.json, sentencepiece .model) from the sources.",
        reads={"sources": ("sources",)},
        writes="tokenizer",
        cost="seconds, and some 400 MB of memory for 100,000 entries",
        config=AdoptConfig,
        run="headwater_tokenizer.adopt:adopt",
    ),
    Stage(
        name="encode",
        summary="Encode the corpus into Megatron .bin/.idx token files, one pair a split.",
        reads={"corpus": ("corpus",), "tokenizer": ("tokenizer",)},
        writes="tokens",
        cost="about 0.1 CPU seconds a megabyte of text; memory does not grow with the corpus; resumes by row group",
        config=EncodeConfig,
        run="headwater_tokenizer.encode:encode",
    ),
    Stage(
        name="merge",
        summary="Join two token datasets of one tokenizer.",
        reads={"first": ("tokens",), "second": ("tokens",), "tokenizer": ("tokenizer",)},
        writes="tokens",
        cost="a copy of the files; memory does not grow with them",
        config=MergeConfig,
        run="headwater_tokenizer.datasets:merge",
    ),
    Stage(
        name="subset",
        summary="Take a random part of a token dataset's training documents.",
        reads={"tokens": ("tokens",), "tokenizer": ("tokenizer",)},
        writes="tokens",
        cost="a copy of the part, and decoding it to count its text: about 1 CPU second a million tokens",
        config=SubsetConfig,
        run="headwater_tokenizer.datasets:subset",
    ),
    Stage(
        name="compare",
        summary="Measure tokenizers side by side on the corpus's held-out text, and make a page of it.",
        reads={"corpus": ("corpus",), "sources?": ("sources",), "documents?": ("documents",), "*": ("tokenizer",)},
        writes="comparison",
        cost="some 5 CPU seconds a tokenizer for 1 MB of held-out text and 10 MB of sample; 1 GB of memory for ten "
        "tokenizers, whatever the corpus; what the judge's models take beside that is their config's",
        config=CompareConfig,
        run="headwater_tokenizer.compare.stage:compare",
        code=("headwater_model?",),  # trains the models that judge
    ),
]

COMMANDS = [
    Command("peek", "Print documents of a token dataset.", _peek_arguments, "headwater_tokenizer.datasets:peek"),
    Command("view", "Show text coloured by the tokens of two or more tokenizers, side by side.", _view_arguments,
            "headwater_tokenizer.compare.view:view"),
]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    return cli.main("headwater-tokenizer", __version__, STAGES, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
