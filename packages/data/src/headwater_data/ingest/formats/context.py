"""What every format's reader is given beside the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

from ...config import ExtractConfig
from ..html import decode
from ..sandbox import Sandbox

CHUNK = 1 << 20


@dataclass(frozen=True)
class Context:
    """Of one file: its source's source.json, the stage's config, the worker that parses pages."""

    source: dict
    config: ExtractConfig
    sandbox: Sandbox


XML_ERRORS = (ElementTree.ParseError, OSError, EOFError, ValueError, LookupError)
"""What a broken document makes ElementTree raise; LookupError for an encoding that nobody knows."""


def is_binary(head: bytes) -> bool:
    """Whether a file's first bytes are those of no text: NULs in its first line, or one byte in a hundred."""
    head = head[:4096]
    return b"\0" in head.partition(b"\n")[0] or head.count(b"\0") > len(head) // 100


def wide_encoding(data: bytes) -> str:
    """utf-16 or utf-32 by the mark at the start; empty without one."""
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    return "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""


def whole_text(data: bytes) -> str | None:
    """Text of a file: UTF-8, UTF-16 or UTF-32 with its mark, else what detection says; None for what is no text."""
    if wide := wide_encoding(data):
        return data.decode(wide, "replace")
    if is_binary(data):
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return decode(data, None)


def bounded_lines(stream: IO[bytes], most: int) -> Iterator[tuple[int, bytes | None]]:
    """(number, line without its end) of a stream; None for a line of more than `most` bytes, of which no more than one
    chunk is ever held."""
    held, number, skipping = b"", 0, False
    while chunk := stream.read(CHUNK):
        lines = (held + chunk).split(b"\n")
        held = lines.pop()
        for line in lines:
            if skipping:
                skipping = False
                yield number, None
            else:
                yield number, line.rstrip(b"\r") if len(line) <= most else None
            number += 1
        if len(held) > most:
            held, skipping = b"", True
    if held or skipping:
        yield number, None if skipping else held.rstrip(b"\r")
