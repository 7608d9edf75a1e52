"""Padding, truncation, windows and packing of encoded rows, where a user of tokenizers looks for them.

They live in the contract (_contracts/sequences.py), since SFT and evaluation batch by the same functions and know
tokenizers as artefacts only, never this package.
"""

from headwater_tokenizer._contracts.sequences import (
    IGNORED,
    Packed,
    Side,
    join,
    pack,
    packed,
    pad,
    truncate,
    windows,
)

__all__ = ["IGNORED", "Packed", "Side", "join", "pack", "packed", "pad", "truncate", "windows"]
