"""A package as small as one can be on the contract: one stage that counts words, file by file."""

__version__ = "0.1.0"
