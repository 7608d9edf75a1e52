"""Benchmarks, bias, compressor baseline, report."""

from importlib.metadata import version

__version__ = version("headwater-eval")
