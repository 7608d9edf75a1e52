"""How vocabularies write a single byte: GPT-2's printable stand-ins, or the fallback entries <0x00> to <0xFF>."""

from __future__ import annotations


def bytes_of_characters() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte -> the byte (Radford et al. 2019, encoder.py, bytes_to_unicode).

    Printable Latin-1 stands for itself, the other 68 bytes for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def byte_entries() -> list[str]:
    """The 256 entries that a character without one falls back to, as tokenizers and sentencepiece name them."""
    return [f"<0x{byte:02X}>" for byte in range(256)]
