"""Which format a file has, from its first bytes. A name only helps to tell program text from prose."""

from __future__ import annotations

import json
import re

from .context import is_binary, wide_encoding

_FORMATS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE | re.MULTILINE | re.DOTALL))
    for name, pattern in (
        ("mediawiki", r"\A\s*(<\?xml[^>]*\?>\s*)?<mediawiki[\s>]"),
        ("stackexchange", r"\A\s*(<\?xml[^>]*\?>\s*)?<posts>"),
        ("jats", r"\A\s*(<\?xml[^>]*\?>\s*)?(<!DOCTYPE (article|Pubmed)[^>]*>\s*)?(<!--.*?-->\s*)*"
                 r"<(article|pmc-articleset|PubmedArticleSet)[\s>]"),
        ("vtt", r"\AWEBVTT(\s|\Z)"),
        ("srt", r"\A\s*\d+\s*\n\d{1,2}:\d\d:\d\d[,.]\d{1,3}\s*-->\s*\d"),
        ("mbox", r"\AFrom \S+.*?\n(?:[A-Za-z-]+:[^\n]*\n)"),
        ("mail", r"\A(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*){0,40}(?:From|Message-ID|Received):[^\n]*\n"
                 r"(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*)*\n"),
        ("html", r"\A(\s|<!--.*?-->|<\?xml[^>]*\?>)*(<!DOCTYPE html|<html[\s>]|<head[\s>]|<body[\s>])"),
        ("gutenberg", r"^\*\*\* ?START OF TH(E|IS) PROJECT GUTENBERG EBOOK"),
        ("latex", r"^\s*\\(documentclass|documentstyle|begin\{[a-z]+\*?\}|section\*?\{|chapter\*?\{)"),
    )
)  # fmt: skip
TIME = r"[\[(]?(?:\d{4}-\d\d-\d\d[T ]|\d{1,2} [A-Z][a-z]{2} )?\d{1,2}:\d\d(?::\d\d)?Z?[\])]?"
"""Of a line of a chat's log."""
_CHAT = re.compile(rf"^\s*{TIME}\s*(<\s*[@+%~&]?[^>\s]{{1,200}}>|\*|-+|[<-]--|\S+ -!-)")
_MARKDOWN = re.compile(r"^#{1,6} \S|\]\([^)\s]+\)|^```|^\s*[-*] .+\n\s*[-*] |^\S.*\n[=-]{3,}\s*$", re.MULTILINE)
_TAGS = re.compile(r"<(p|div|br|a|table|h[1-6]|ul|span)\b[^>]*>", re.IGNORECASE)


def sniff(head: bytes, name: str) -> str:
    """The format of a file that is neither compressed nor an archive; `binary` for what is no text.

    Args:
        head: its first 64 KiB or fewer.
        name: asked last, and only whether it is a name of program text.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return "epub" if head[30:58] == b"mimetypeapplication/epub+zip" else "binary"
    if head.startswith(b"WARC/"):
        return "warc"
    if _is_json_line(head.lstrip().partition(b"\n")[0]):
        return "jsonl"
    if wide := wide_encoding(head):
        text = head.decode(wide, "ignore")
    elif is_binary(head):
        return "binary"
    else:
        text = head.decode("utf-8-sig", "replace")
    text = text.replace("\r\n", "\n")
    for found, pattern in _FORMATS:
        if pattern.search(text):
            return found
    return _by_lines(text, name)


def _is_json_line(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _by_lines(text: str, name: str) -> str:
    lines = [line for line in text[:16_000].split("\n")[:200] if line.strip()]
    if not lines:
        return "text"
    if len(lines) == 1 and len(text) > 8_000 and re.match(r'\s*\{\s*"\w+"\s*:', text):
        return "jsonl"  # a first record longer than what was read
    if sum(bool(_CHAT.match(line)) for line in lines) > 0.5 * len(lines) and len(lines) > 2:
        return "irc"
    from .code import language_of

    if language_of(name, text):
        return "code"
    if delimiter_of(lines):
        return "csv"
    if len(_TAGS.findall(text)) >= max(5, len(lines) // 4):
        return "html"
    return "markdown" if len(_MARKDOWN.findall(text)) >= 3 else "text"


def delimiter_of(lines: list[str]) -> str:
    """The delimiter of a table with a header: the same one as often in each of the first lines, outside of quotes."""
    for delimiter in "\t,;":
        counts = {re.sub(r'"[^"]*"', "", line).count(delimiter) for line in lines[:20]}
        header = [cell.strip().strip('"') for cell in lines[0].split(delimiter)]
        named = all(re.fullmatch(r"[\w .-]{1,40}", cell) for cell in header)
        if len(counts) == 1 and 0 not in counts and len(lines) > 1 and named:
            return delimiter
        if named and len(header) > 1 and len(set(header)) == len(header) and lines[1:] and '"' in "".join(lines[1:]):
            return delimiter
    return ""
