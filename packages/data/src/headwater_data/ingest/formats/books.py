"""Prose in files: plain text, Project Gutenberg's texts, Markdown, one document a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from ..records import Malformed, Raw, Record
from .context import Context, bounded_lines, whole_text

_START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*?\*\*\*\s*$", re.M | re.I | re.S)
_END = re.compile(r"^\s*(?:\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg)", re.M | re.I)
_CREDIT = re.compile(r"\A\s*(?:Produced by|E-text prepared by|This etext was)[^\n]*(?:\n[^\n]+)*\n\s*\n", re.I)
_MD_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_MD_RULE = re.compile(r"^\s*(?:[-*_]\s*){3,}$", re.M)


def _read(stream: IO[bytes], key: str, context: Context) -> Raw | Malformed:
    data = stream.read(context.config.max_text_bytes + 1)
    if len(data) > context.config.max_text_bytes:
        return Malformed(key, "file_too_large", f"more than {context.config.max_text_bytes} bytes")
    text = whole_text(data)
    if text is None:
        return Malformed(key, "not_utf8", f"{len(data)} bytes")
    return Raw(key, text, context.source.get("base_url", "") and context.source["base_url"] + quote(key))


def read_text(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """One work a file."""
    yield _read(stream, key, context)


def read_gutenberg(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """A Project Gutenberg text without its licence header and footer and the note on who produced it."""
    record = _read(stream, key, context)
    if isinstance(record, Raw):
        text, meta = gutenberg(record.text)
        record = Raw(key, text, record.url, meta)
    yield record


def gutenberg(text: str) -> tuple[str, dict]:
    """(the work, title and author as the header names them)."""
    text = text.replace("\r\n", "\n")
    start = _START.search(text)
    header = text[: start.start()] if start else ""
    body = text[start.end() :] if start else text
    end = _END.search(body)
    body = _CREDIT.sub("", body[: end.start()] if end else body)
    named = {f.lower(): m[1].strip() for f in ("Title", "Author") if (m := re.search(rf"^{f}:\s*(.+)$", header, re.M))}
    return body.strip("\n").rstrip(), named


def read_markdown(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """Links keep their words and lose their targets, rules go, the rest stays as written."""
    record = _read(stream, key, context)
    yield Raw(key, plain_markdown(record.text), record.url) if isinstance(record, Raw) else record


def plain_markdown(text: str) -> str:
    """Markdown without link targets and rules."""
    return _MD_RULE.sub("", _MD_LINK.sub(r"\1", text))


def read_lines(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """One document a line."""
    for number, line in bounded_lines(stream, context.config.max_line_bytes):
        name = f"{key}#{number:06d}"
        if line is None:
            yield Malformed(name, "line_too_long", f"more than {context.config.max_line_bytes} bytes")
        elif line.strip():
            yield Raw(name, line.decode("utf-8", "replace"))
