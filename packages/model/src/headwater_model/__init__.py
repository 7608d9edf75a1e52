"""Plan, pre-train with Megatron, export."""

from importlib.metadata import version

__version__ = version("headwater-model")
