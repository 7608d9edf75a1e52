"""Compressed and archived bytes, opened as far as limits allow: layers of compression, members of archives.

What a file is is told by its first bytes, never by its name. A stream that grows past its limit, an archive in an
archive in an archive, a member without end: refused with a reason, and its neighbours are read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import zstandard

HEAD = 65_536
"""Bytes from which a format is told."""


@dataclass(frozen=True)
class Limits:
    """How far bytes are opened."""

    member_bytes: int
    """Of one file after decompression."""
    ratio: int
    """Decompressed to compressed bytes, asked of what is larger than 10 MB."""
    depth: int
    """Archives and compressions inside each other."""


class TooLarge(Exception):
    """A stream that grew past its limits; the message says which."""


class Bounded(io.RawIOBase):
    """A decompressing stream that refuses to give more than its limits allow."""

    def __init__(self, inner: IO[bytes], outer: IO[bytes] | None, limits: Limits):
        self.inner, self.outer, self.limits, self.given = inner, outer, limits, 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer) -> int:  # buffer: bytes-like, writable
        """Fill the buffer; raises TooLarge."""
        data = self.inner.read(len(buffer))
        buffer[: len(data)] = data
        self.given += len(data)
        if self.given > self.limits.member_bytes:
            raise TooLarge(f"more than {self.limits.member_bytes} bytes")
        large = self.outer is not None and self.given > 10_000_000
        if large and self.given > self.limits.ratio * max(self.outer.tell(), 1):  # type: ignore[union-attr]
            raise TooLarge(f"more than {self.limits.ratio} times its compressed size")
        return len(data)


MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}


def container_of(head: bytes) -> str:
    """gzip, zstd, bzip2, xz, zip, tar, or nothing."""
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    return "tar" if head[257:262] == b"ustar" else ""


def peek(stream: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """The first bytes, and a stream that gives them again."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream, HEAD)  # type: ignore[type-var]
    return buffered.peek(HEAD)[:HEAD], buffered


BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError, zipfile.BadZipFile,
          NotImplementedError, RuntimeError, ValueError)  # fmt: skip
"""What libraries raise for damaged or unknown archives (a password is a RuntimeError)."""


@dataclass(frozen=True)
class Opened:
    """A file inside a file, or the reason why it is none."""

    name: str
    """Path within the outermost file; empty for that one itself."""
    stream: IO[bytes] | None
    rule: str = ""
    detail: str = ""


def opened(stream: IO[bytes], limits: Limits, name: str = "", depth: int = 0) -> Iterator[Opened]:
    """Every plain file inside a stream, decompressed and taken out of archives; itself if it is none.

    EPUB and Office files are archives too, but are one document: a zip whose first member is `mimetype` or
    `[Content_Types].xml` is given whole.
    """
    head, stream = peek(stream)
    kind = container_of(head)
    if kind == "zip" and (head[30:38] == b"mimetype" or head[30:49] == b"[Content_Types].xml"):
        kind = ""
    if not kind:
        yield Opened(name, stream)
        return
    if depth >= limits.depth:
        yield Opened(name, None, "archive_too_deep", f"more than {limits.depth} inside each other")
        return
    try:
        if kind == "tar":
            yield from _tar(stream, limits, name, depth)
        elif kind == "zip":
            yield from _zip(stream, limits, name, depth)
        else:
            inner = Bounded(_decompressed(stream, kind), stream if stream.seekable() else None, limits)
            yield from opened(io.BufferedReader(inner, HEAD), limits, name, depth + 1)
    except TooLarge as e:
        yield Opened(name, None, "decompression_bomb", str(e))
    except BROKEN as e:
        yield Opened(name, None, "broken_archive", f"{type(e).__name__}: {e}"[:200])


def _decompressed(stream: IO[bytes], kind: str) -> IO[bytes]:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if kind == "zstd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        return decompressor.stream_reader(stream, read_across_frames=True)
    return bz2.BZ2File(stream) if kind == "bzip2" else lzma.LZMAFile(stream)  # type: ignore[return-value]


def _tar(stream: IO[bytes], limits: Limits, name: str, depth: int) -> Iterator[Opened]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for info in archive:
            if not info.isfile():
                continue  # links and devices: nothing is written, so nothing can climb out
            path = f"{name}/{info.name}" if name else info.name
            if info.size > limits.member_bytes:
                yield Opened(path, None, "member_too_large", f"{info.size} bytes")
                continue
            content = archive.extractfile(info)
            assert content is not None
            yield from opened(io.BytesIO(content.read()), limits, path, depth + 1)


def _zip(stream: IO[bytes], limits: Limits, name: str, depth: int) -> Iterator[Opened]:
    whole = stream if stream.seekable() else io.BytesIO(Bounded(stream, None, limits).readall() or b"")
    with zipfile.ZipFile(whole) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            path = f"{name}/{info.filename}" if name else info.filename
            if info.file_size > limits.member_bytes:
                yield Opened(path, None, "member_too_large", f"{info.file_size} bytes")
                continue
            if info.file_size > 10_000_000 and info.file_size > limits.ratio * max(info.compress_size, 1):
                yield Opened(path, None, "decompression_bomb", f"{info.compress_size} bytes become {info.file_size}")
                continue
            try:
                with archive.open(info) as member:  # reads no more than the size that the directory states
                    data = member.read()
            except BROKEN as e:
                yield Opened(path, None, "broken_archive", f"{type(e).__name__}: {e}"[:200])
                continue
            yield from opened(io.BytesIO(data), limits, path, depth + 1)
