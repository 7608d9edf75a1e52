"""Raw sources to a clean, deduplicated, decontaminated corpus."""

from importlib.metadata import version

__version__ = version("headwater-data")
