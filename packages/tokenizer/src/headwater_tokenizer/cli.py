"""headwater-tokenizer: corpus to tokenizer to token dataset."""

from __future__ import annotations

import sys

from headwater_tokenizer import __version__
from headwater_tokenizer._contracts import cli
from headwater_tokenizer._contracts.stage import Stage
from headwater_tokenizer.config import EncodeConfig, TrainConfig

STAGES = [
    Stage(
        name="train",
        summary="Learn a byte-level BPE vocabulary from a sample of the corpus.",
        reads={"corpus": ("corpus",)},
        writes="tokenizer",
        cost="about 0.3 CPU seconds and 5 MB of memory a megabyte of sample; the sample is capped by sample_bytes",
        config=TrainConfig,
        section="tokenizer",  # `train` alone would say too little among the params of a whole lineage
        run="headwater_tokenizer.train:train",
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
]


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    return cli.main("headwater-tokenizer", __version__, STAGES, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
