"""Talk: IRC logs and subtitles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from ..records import Malformed, Raw, Record
from .context import Context, whole_text
from .sniff import TIME

_STAMP = rf"^\s*{TIME}\s*"
_SAID = re.compile(
    _STAMP + r"<\s*[@+%~&]?([^>\s!]{1,32})(?:>\s?|![^>\s]{1,200}> [+-]?)(.*)$"
)  # dircproxy: nick!user@host
_ACTED = re.compile(_STAMP + r"\*\s+(?!\*)([^\s*]{1,32})\s+(.*)$")
_NOTE = re.compile(r"(?:\A|(?<=\n\n))NOTE(?=\s)[^\n]*(?:\n[^\n]+)*")


def read_irc(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """A log as `<nick> words` and `* nick acts`; times, joins, parts and other notices go."""
    text = whole_text(stream.read(context.config.max_page_bytes))
    if text is None:
        yield Malformed(key, "not_text", "")
        return
    lines = []
    for line in text.split("\n"):
        said = _SAID.match(line)
        if said and said[2].strip():
            lines.append(f"<{said[1]}> {said[2].strip()}")
        elif acted := _ACTED.match(line):
            lines.append(f"* {acted[1]} {acted[2].strip()}")
    yield Raw(key, "\n".join(lines), "", {"turns": len(lines)})


def read_subtitles(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """SRT or WebVTT: the words in order, without numbers, times and tags; a gap of 5 seconds is a paragraph."""
    import pysubs2

    text = whole_text(stream.read(context.config.max_page_bytes))
    if text is None:
        yield Malformed(key, "not_text", "")
        return
    vtt = text.lstrip().startswith("WEBVTT")
    if vtt:  # pysubs2 takes a comment for words
        text = _NOTE.sub("", text.replace("\r\n", "\n"))
    try:
        events = pysubs2.SSAFile.from_string(text, format_="vtt" if vtt else "srt")
    except Exception as e:  # pysubs2 raises its own and ValueError, IndexError on broken times
        yield Malformed(key, "broken_subtitles", type(e).__name__)
        return
    out: list[str] = []
    last = 0
    for event in events:
        words = " ".join(re.sub(r"<[^>]*>", "", event.plaintext).split())
        if words:
            out.append(("\n\n" if out and event.start - last > 5_000 else "\n" if out else "") + words)
        last = event.end
    yield Raw(key, "".join(out), "", {"cues": len(events)})
