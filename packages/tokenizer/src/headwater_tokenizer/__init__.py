"""Corpus to tokenizer to Megatron token dataset."""

from importlib.metadata import version

__version__ = version("headwater-tokenizer")
