"""Command `view`: any text coloured by the tokens of any tokenizers, as a page or in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from headwater_tokenizer._contracts.errors import UsageError, UserError
from headwater_tokenizer._contracts.manifest import write_atomic
from headwater_tokenizer.compare.coloured import HUES, groups, seen, summary
from headwater_tokenizer.compare.page import render
from headwater_tokenizer.compare.spans import Cut, Cutter
from headwater_tokenizer.encoder import Encoder

MOST_BYTES = 100_000
"""Of text on a page: 60,000 boxes on the two sides, which Chromium drew in 9 s on two busy cores; 200,000 took 30 s."""

_BACKGROUNDS = (222, 117, 228, 218, 147, 115)  # of the 256 colours; with black letters on any theme
assert len(_BACKGROUNDS) == HUES


def view(args: argparse.Namespace) -> None:
    """Write the page, print the text, or both.

    Raises:
        UserError: a folder without a tokenizer; text that is empty, not UTF-8, or too long for a page.
        UsageError: neither a page nor the terminal is asked for.
    """
    if args.out is None and not args.terminal:
        raise UsageError("--out FILE or --terminal is needed: where the coloured text shall go")
    encoders = dict(zip(named(args.tokenizer), map(Encoder, args.tokenizer), strict=True))
    text, name = read_text(args.text)
    if args.out is not None and (size := len(text.encode())) > MOST_BYTES:
        raise UserError(f"{name}: {size:,} bytes, but a page shows at most {MOST_BYTES:,}; cut the text")
    if args.terminal:
        for line in in_terminal(text, encoders):
            print(line)
    if args.out is not None:
        if args.out.is_dir():
            raise UsageError(f"--out {args.out}: a folder; name a file for the page")
        if not args.out.absolute().parent.is_dir():
            raise UsageError(f"--out {args.out}: no folder {args.out.parent}; make it first")
        write_atomic(args.out, render(None, [{"id": name, "source": "", "lang": "", "text": text}], encoders))


def named(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its last parts, as few as tell all apart.

    Raises:
        UsageError: a folder is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if twice := next((folder for i, folder in enumerate(folders) if parts[i] in parts[:i]), None):
        raise UsageError(f"--tokenizer {twice}: given twice; name each tokenizer once")
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def read_text(path: Path | None) -> tuple[str, str]:
    """The text of a file or of standard input, and how to call it.

    Raises:
        UserError: not readable, not UTF-8, or empty.
    """
    name = "standard input" if path is None else str(path)
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
        text = data.decode()
    except OSError as e:
        raise UserError(f"{name}: {e.strerror}; name a file of text with --text") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{name}: not UTF-8 (byte {data[e.start]:#04x} at {e.start}); convert it first") from None
    if not text:
        raise UserError(f"{name}: empty, so there is nothing to show; give some text")
    return text, name if path is None else path.name


def in_terminal(text: str, encoders: dict[str, Encoder]) -> Iterator[str]:
    """Lines with ANSI background colours: each tokenizer's name and figures, then the text."""
    for name, encoder in encoders.items():
        cut = Cutter(encoder).cut([text])[0]
        yield f"== {seen(name)}: {summary(cut, len(text.encode()), encoder.unknown)}"
        yield from _painted(cut, encoder.unknown).split("\n")


def _painted(cut: Cut, unknown: int | None) -> str:
    data = cut.text.encode()
    parts = []
    at = 0
    for number, (first, after) in enumerate(groups(cut)):
        start, end = cut.spans[first][0], cut.spans[after - 1][1]
        missed = ";4" if unknown is not None and unknown in cut.ids[first:after] else ""  # underlined
        paint = f"\x1b[38;5;16;48;5;{_BACKGROUNDS[number % HUES]}{missed}m"
        count = f"×{after - first}" if after - first > 1 else ""
        lines = (_printable(data[start:end].decode()) + count).replace("\n", "↵\n").split("\n")
        parts += [_printable(data[at:start].decode()), "\n".join(f"{paint}{line}\x1b[0m" for line in lines if line)]
        parts += ["\n"] if lines[-1] == "" else []
        at = end
    return "".join([*parts, _printable(data[at:].decode())])


def _printable(text: str) -> str:
    """What can't move the cursor: control characters, which a terminal would obey, by number."""
    return seen(text.replace("\t", "→   "))
