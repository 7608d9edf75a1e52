"""Files whose format is told by their content: what reads each, and how a large one is shared out.

A file that is neither compressed nor an archive is cut where its format allows: JSON lines at line ends, Parquet
between row groups; a WARC of gzip members (as every crawl's) between members. What else is large is one worker's.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import ExtractConfig
from .bounded import HEAD, Limits, TooLarge, container_of, opened, peek
from .formats import books, code, dumps, papers, tables, talk, web
from .formats.context import Context, bounded_lines
from .formats.sniff import sniff
from .records import Malformed, Record
from .sandbox import Sandbox

FORMATS: dict[str, Callable[[IO[bytes], str, Context], Iterator[Record]]] = {
    "warc": web.read_warc,
    "html": web.read_html,
    "epub": web.read_epub,
    "jsonl": tables.read_jsonl,
    "parquet": tables.read_parquet,
    "csv": tables.read_csv,
    "mediawiki": dumps.read_mediawiki,
    "stackexchange": dumps.read_stackexchange,
    "mbox": dumps.read_mbox,
    "mail": dumps.read_mail,
    "irc": talk.read_irc,
    "srt": talk.read_subtitles,
    "vtt": talk.read_subtitles,
    "latex": papers.read_latex,
    "jats": papers.read_jats,
    "gutenberg": books.read_gutenberg,
    "markdown": books.read_markdown,
    "text": books.read_text,
    "lines": books.read_lines,
    "code": code.read_code,
}
"""Format -> reader of one plain file."""


@dataclass(frozen=True)
class FilePart:
    """A shard: one file of a source, or a range of it."""

    folder: Path
    source: dict
    path: str
    """Relative to the folder."""
    config: ExtractConfig
    start: int = 0
    stop: int = -1
    """Bytes, or row groups of a Parquet file; -1: to the end."""


def plan_files(folder: Path, source: dict, config: ExtractConfig) -> list[FilePart]:
    """Every file of a source, large ones in ranges; depends on the files and the config alone."""
    parts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / "source.json"):
        name = path.relative_to(folder).as_posix()
        parts += [FilePart(folder, source, name, config, a, b) for a, b in _ranges(path, name, source, config)]
    return parts


def _ranges(path: Path, name: str, source: dict, config: ExtractConfig) -> list[tuple[int, int]]:
    size, step = path.stat().st_size, config.split_bytes
    if size <= step:
        return [(0, -1)]
    with open(path, "rb") as f:
        head = f.read(HEAD)
    if _is_warc_of_members(head):
        return [(a, min(a + step, size)) for a in range(0, size, step)]
    if container_of(head):
        return [(0, -1)]
    kind = _format(source, head, name)
    if kind == "parquet":
        try:
            groups = pq.read_metadata(path).num_row_groups
        except (pa.ArrowException, OSError):
            return [(0, -1)]
        each = max(round(groups * step / size), 1)
        return [(a, min(a + each, groups)) for a in range(0, groups, each)]
    if kind in ("jsonl", "lines"):
        return [(a, min(a + step, size)) for a in range(0, size, step)]
    return [(0, -1)]


def _format(source: dict, head: bytes, name: str) -> str:
    """Of plain bytes: as the source names it, else as the content shows."""
    return source["reader"] if source["reader"] in FORMATS else sniff(head, name)


def _is_warc_of_members(head: bytes) -> bool:
    return head.startswith(b"\x1f\x8b") and _starts_warc(head)


def _starts_warc(data: bytes) -> bool:
    try:
        return zlib.decompressobj(31).decompress(data[:4096], 64).startswith(b"WARC/")
    except zlib.error:
        return False


@cache
def sandbox_of(seconds: float, memory_mb: int) -> Sandbox:
    """This process's worker for parsers; it starts with its first item, and again after `close`."""
    return Sandbox("headwater_data.ingest.parsers:parse", seconds, memory_mb * 1_000_000)


def context_of(source: dict, config: ExtractConfig) -> Context:
    """What readers are given."""
    return Context(source, config, sandbox_of(config.page_seconds, config.parser_memory_mb))


def read_files(part: FilePart) -> Iterator[Record]:
    """The records of a shard."""
    context = context_of(part.source, part.config)
    path = part.folder / part.path
    if part.stop >= 0:
        yield from _read_range(path, part, context)
        return
    limits = Limits(part.config.max_text_bytes, part.config.max_expansion, part.config.max_depth)
    with open(path, "rb") as f:
        if _is_warc_of_members(f.read(HEAD)):  # FastWARC opens these itself, twice as fast
            f.seek(0)
            yield from web.read_warc(f, part.path, context)
            return
        f.seek(0)
        for found in opened(f, limits):
            name = f"{part.path}/{found.name}" if found.name else part.path
            if found.stream is None:
                yield Malformed(name, found.rule, found.detail)
                continue
            try:
                yield from read_stream(found.stream, name, context)
            except TooLarge as e:
                yield Malformed(f"{name}#end", "decompression_bomb", str(e))
            except (OSError, EOFError, zlib.error) as e:  # cut short: what lies before it counts
                yield Malformed(f"{name}#end", "broken_archive", f"{type(e).__name__}: {e}"[:200])
            except Exception as e:  # no file may cost its neighbours, whatever a library raises
                yield Malformed(f"{name}#end", "unreadable", f"{type(e).__name__}: {e}"[:200])


def read_stream(stream: IO[bytes], name: str, context: Context) -> Iterator[Record]:
    """The records of one plain file."""
    head, stream = peek(stream)
    kind = _format(context.source, head, name)
    if kind == "binary":
        yield Malformed(name, "not_text", f"begins with {head[:8].hex()}")
        return
    yield from FORMATS[kind](stream, name, context)


def _read_range(path: Path, part: FilePart, context: Context) -> Iterator[Record]:
    with open(path, "rb") as f:
        head = f.read(HEAD)
        if _is_warc_of_members(head):
            yield from _warc_range(f, part, context)
            return
        kind = _format(part.source, head, part.path)
        if kind == "parquet":
            file = pq.ParquetFile(path)
            for group in range(part.start, part.stop):
                yield from tables.parquet_group(file, group, part.path, context)
        else:
            yield from _lines_range(f, part, kind, context)


def _lines_range(f: IO[bytes], part: FilePart, kind: str, context: Context) -> Iterator[Record]:
    """Lines that begin in the range; the last one to its end, wherever that is."""
    start = 0
    if part.start:
        f.seek(part.start - 1)
        start = part.start - 1 + _skip_line(f)
    if start >= part.stop:
        return
    f.seek(start)
    end = io.BufferedReader(_Until(f, part.stop - start))  # type: ignore[arg-type]
    key = f"{part.path}+{part.start}" if part.start else part.path
    if kind == "jsonl":
        for number, line in bounded_lines(end, part.config.max_line_bytes):
            yield from tables.json_line(f"{key}#{number:06d}", line, context)
    else:
        yield from books.read_lines(end, key, context)


def _skip_line(f: IO[bytes]) -> int:
    """Bytes up to the end of the line, in pieces: a line may be a gigabyte."""
    skipped = 0
    while piece := f.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


class _Until(io.RawIOBase):
    """A stream up to the end of the line in which a number of bytes is reached."""

    def __init__(self, f: IO[bytes], wanted: int):
        self.f, self.left, self.done = f, wanted, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if self.done:
            return 0
        if self.left > 0:
            data = self.f.read(min(len(buffer), self.left))
            self.left -= len(data)
            self.done = not data or (self.left <= 0 and data.endswith(b"\n"))
        else:
            data = self.f.readline(len(buffer))
            self.done = not data or data.endswith(b"\n")
        buffer[: len(data)] = data
        return len(data)


def _warc_range(f: IO[bytes], part: FilePart, context: Context) -> Iterator[Record]:
    """Records whose gzip member begins in the range."""
    start = _next_member(f, part.start, part.stop) if part.start else 0
    if start is None:
        return
    end = _next_member(f, part.stop, os.fstat(f.fileno()).st_size)
    f.seek(start)
    members = f if end is None else web.Forward(f, end - start)
    yield from web.read_warc(members, f"{part.path}+{start}" if start else part.path, context)  # type: ignore[arg-type]


def _next_member(f: IO[bytes], start: int, stop: int) -> int | None:
    """Where the first gzip member that holds a WARC record begins, from `start` and before `stop`."""
    at = start
    while at < stop:
        f.seek(at)
        data = f.read(1 << 20)
        found = data.find(b"\x1f\x8b\x08")
        while found != -1 and at + found < stop:
            f.seek(at + found)
            if _starts_warc(f.read(4096)):
                return at + found
            found = data.find(b"\x1f\x8b\x08", found + 1)
        if len(data) < 1 << 20:
            return None
        at += len(data) - 2
    return None
