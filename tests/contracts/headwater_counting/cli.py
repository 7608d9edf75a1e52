"""Its command line: `python -m headwater_counting.cli count --in DIR --out DIR`."""

from __future__ import annotations

import sys
from typing import Literal

from pydantic import Field, model_validator

from headwater_counting import __version__
from headwater_data._contracts import cli
from headwater_data._contracts.config import Config
from headwater_data._contracts.stage import Stage


class Ballast(Config):
    """Bytes written beside the counts, to fill a disk."""

    bytes: int = Field(0, ge=0, description="bytes")
    by: Literal["python", "numpy", "polars"] = Field("python", description="library that writes them")


class CountConfig(Config):
    """What counts as a word."""

    minimum_length: int = Field(1, ge=1, description="characters of a word, at least")
    maximum_length: float = Field(float("inf"), description="characters of a word, at most")
    ballast: Ballast = Ballast()

    @model_validator(mode="after")
    def _ordered(self) -> CountConfig:
        if self.minimum_length > self.maximum_length:
            raise ValueError("minimum_length is above maximum_length: no word is left")
        return self


STAGE = Stage(
    name="count",
    summary="Count the words of every text.",
    reads={"texts": ("documents",), "more?": ("documents",)},
    writes="results",
    cost="nothing",
    config=CountConfig,
    run="headwater_counting.count:count",
)


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    return cli.main("headwater-counting", __version__, [STAGE], argv=argv)


if __name__ == "__main__":
    sys.exit(main())
