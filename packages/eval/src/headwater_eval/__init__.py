"""Scores of language models: benchmarks, bias, toxicity, leakage, comparison, review, model card, report."""

from importlib.metadata import version

__version__ = version("headwater-eval")
