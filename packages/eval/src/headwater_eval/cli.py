"""`headwater-eval`: the stages of this package."""

from . import __version__
from ._contracts.cli import main as run_cli
from ._contracts.stage import Stage
from .config import CompressorConfig, EvaluateConfig, ItemsConfig, ToxicityConfig
from .report.stage import STAGE as REPORT

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
        reads={"model": ("export",), "items": ("items",), "corpus": ("corpus",), "toxicity?": ("classifier",)},
        writes="results",
        cost="under a minute a model of 5 M parameters on 2 cores; memory about 1 GB beside the model",
        config=EvaluateConfig,
        run="headwater_eval.evaluate:run",
        code=("headwater_model",),
    ),
    REPORT,
]


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script."""
    return run_cli("headwater-eval", __version__, STAGES, argv=argv)
