"""Web pages: WARC and WET archives, single HTML files, EPUB books."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Generator, Iterable, Iterator
from typing import IO
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from ..bounded import BROKEN
from ..records import Malformed, Raw, Record
from ..sandbox import BATCH_BYTES, Refused
from .context import Context, whole_text

PAGES = 64
"""Web pages that go to the worker together, at most."""


def read_warc(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """Pages of a WARC file (responses: main text) or of a WET file (conversions: their text as it is)."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    kinds = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.resource
    forward = stream if stream.seekable() else Forward(stream)
    records = ArchiveIterator(forward, record_types=kinds, parse_http=False)
    yield from warc_pages(((f"{key}#{number:06d}", record) for number, record in enumerate(records)), key, context)


def warc_pages(records: Iterable[tuple[str, object]], archive: str, context: Context) -> Generator[Record, None, bool]:
    """Pages of WARC records (key, fastwarc's record), and one last reject if the archive breaks off.

    Returns:
        Whether it was read to its end.
    """
    pending: list[tuple[str, str, bytes, str | None]] = []
    last = archive
    try:
        for last, record in records:
            found = page_of(record, last, context)
            if isinstance(found, tuple):
                pending.append(found)
            else:
                yield found
            if len(pending) >= PAGES or sum(len(p[2]) for p in pending) >= BATCH_BYTES:
                yield from pages(pending, context)
                pending = []
    except BaseException as e:  # a truncated or damaged archive: what lies before it counts
        if not _damaged(e):
            raise
        yield from pages(pending, context)
        yield Malformed(f"{last}#end", "truncated_warc", str(e)[:200])
        return False
    yield from pages(pending, context)
    return True


def _damaged(e: BaseException) -> bool:
    """Whether this is what FastWARC raises for a broken archive; it panics too, which is no Exception."""
    return isinstance(e, OSError | ValueError | EOFError) or type(e).__name__ == "PanicException"


class Forward(io.RawIOBase):
    """A stream as FastWARC wants it, which knows its place and can go on to a later one; up to `size` bytes of it."""

    def __init__(self, stream: IO[bytes], size: int | None = None):
        self.stream, self.at, self.size = stream, 0, size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        target = offset + (self.at if whence == 1 else 0)
        if whence == 2 or target < self.at:
            raise OSError("a stream can't go back")
        while self.at < target and self.read(min(target - self.at, 1 << 20)):
            pass
        return self.at

    def readinto(self, buffer) -> int:
        data = self.stream.read(len(buffer) if self.size is None else min(len(buffer), self.size - self.at))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def page_of(record, name: str, context: Context) -> Record | tuple[str, str, bytes, str | None]:
    """A WARC record (fastwarc's) as (key, address, bytes, charset) to be parsed, as text if it is one, or set aside."""
    from fastwarc.warc import WarcRecordType

    url = record.headers.get("WARC-Target-URI") or ""
    try:
        if record.content_length > context.config.max_page_bytes:
            return Malformed(name, "page_too_large", f"{record.content_length} bytes")
        if record.record_type == WarcRecordType.conversion:
            text = whole_text(record.reader.read())
            return Raw(name, text, url) if text is not None else Malformed(name, "not_text", "")
        charset = None
        if record.record_type == WarcRecordType.response:
            record.parse_http()
            kind = (record.http_content_type or "text/html").lower()
            if "html" not in kind:
                return Malformed(name, "not_html", kind[:200])
            charset = record.http_charset
        return name, url, record.reader.read(), charset
    except (ValueError, OSError, LookupError, UnicodeError, RuntimeError) as e:
        return Malformed(name, "unreadable_page", type(e).__name__)


def pages(pending: list[tuple[str, str, bytes, str | None]], context: Context) -> Iterator[Record]:
    """Main text of pages (key, url, bytes, charset) through the worker."""
    if not pending:
        return
    extractor = context.config.extractor
    answers = context.sandbox.map([(extractor, data, charset) for _, _, data, charset in pending])
    for (key, url, _, _), answer in zip(pending, answers, strict=True):
        if isinstance(answer, Refused):
            yield Malformed(key, answer.rule, answer.detail)
        else:
            text, title = answer
            yield Raw(key, text, url, {"title": title, "whole": True} if title else {"whole": True})


def read_html(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """One page."""
    data = stream.read(context.config.max_page_bytes + 1)
    if len(data) > context.config.max_page_bytes:
        yield Malformed(key, "page_too_large", f"more than {context.config.max_page_bytes} bytes")
        return
    yield from pages([(key, context.source.get("base_url", "") + quote(key), data, None)], context)


def read_epub(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """A book: the chapters in the order of its spine (EPUB 3.3, section 5.7), each through the page reader."""
    try:
        with zipfile.ZipFile(io.BytesIO(stream.read())) as book:
            title, chapters = _spine(book)
            data = [(f"{key}/{path}", "", _member(book, path, context), None) for path in chapters]
    except (*BROKEN, ElementTree.ParseError, KeyError, IndexError) as e:
        yield Malformed(key, "broken_epub", f"{type(e).__name__}: {e}"[:200])
        return
    texts = []
    for record in pages([(k, u, d, c) for k, u, d, c in data if d], context):
        if isinstance(record, Malformed):
            yield record
        elif record.text.strip():
            texts.append(record.text.strip())
    if texts:
        yield Raw(key, "\n\n".join(texts), "", {"title": title} if title else {})
    else:
        yield Malformed(key, "empty", "no chapter has text")


def _member(book: zipfile.ZipFile, path: str, context: Context) -> bytes:
    if book.getinfo(path).file_size > context.config.max_page_bytes:
        return b""
    return book.read(path)


def _spine(book: zipfile.ZipFile) -> tuple[str, list[str]]:
    container = ElementTree.fromstring(book.read("META-INF/container.xml"))
    package_path = container.findall(".//{*}rootfile")[0].attrib["full-path"]
    package = ElementTree.fromstring(book.read(package_path))
    manifest = {item.attrib["id"]: item.attrib["href"] for item in package.findall(".//{*}item")}
    folder = posixpath.dirname(package_path)
    chapters = [
        posixpath.normpath(posixpath.join(folder, unquote(manifest[ref.attrib["idref"]])))
        for ref in package.findall(".//{*}itemref")
        if ref.attrib.get("linear", "yes") != "no" and ref.attrib["idref"] in manifest
    ]
    title = next((t.text or "" for t in package.iter("{http://purl.org/dc/elements/1.1/}title")), "")
    return title.strip(), chapters
