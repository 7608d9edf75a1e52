"""Text coloured by token: groups of tokens, their boxes as HTML, and the arrays from which the page's script draws.

The script (page.js) draws the same boxes from the arrays; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from headwater_tokenizer.compare.spans import Cut, Cutter
from headwater_tokenizer.encoder import Encoder

HUES = 6
SHOWN_BYTES = 24  # of a token in its tooltip

UNSEEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
)
"""Control, bidirectional and invisible characters, which break or reorder what stands around them: written by number.
Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji need them. A character class for Python and the script.
"""
_ODD = re.compile(rf"[ \t\n{UNSEEN}]")
_CLASSES = {" ": "b", "\t": "t", "\n": "n"}


def groups(cut: Cut) -> Iterator[tuple[int, int]]:
    """Tokens [first, after) that are drawn as one box: one token, or those that share a character's bytes."""
    data = cut.text.encode()
    first = 0
    while first < len(cut.spans):
        after = first + 1
        while after < len(cut.spans) and (
            _inside(data, cut.spans[after - 1][1]) or cut.spans[after][0] == cut.spans[after][1]
        ):
            after += 1
        yield first, after
        first = after


def _inside(data: bytes, at: int) -> bool:
    """Whether a place lies within a character: at a continuation byte."""
    return at < len(data) and data[at] & 0xC0 == 0x80


def drawn(cut: Cut, unknown: int | None) -> Markup:
    """The boxes of a text, with what no token covers between them."""
    data = cut.text.encode()
    parts: list[str] = []
    at = 0
    for number, (first, after) in enumerate(groups(cut)):
        start, end = cut.spans[first][0], cut.spans[after - 1][1]
        kinds = f"c{number % HUES}"
        kinds += " cut" if after - first > 1 else ""
        kinds += " none" if start == end else ""
        kinds += " unk" if unknown is not None and unknown in cut.ids[first:after] else ""
        count = f' data-n="{after - first}"' if after - first > 1 else ""
        box = f'<span class="{kinds}"{count} title="{told(cut, first, after, unknown)}">'  # numbers and names of ours
        parts += [visible(data[at:start].decode()), box, visible(data[start:end].decode()), "</span>"]
        at = end
    return Markup("".join([*parts, visible(data[at:].decode())]))


def told(cut: Cut, first: int, after: int, unknown: int | None) -> str:
    """What a box's tooltip says: id and bytes of its tokens."""
    names = [("unknown, id " if id_ == unknown else "id ") + str(id_) for id_ in cut.ids[first:after]]
    parts = cut.pieces[first:after]
    if len(parts) == 1:
        size = f"{len(parts[0])} byte{'' if len(parts[0]) == 1 else 's'}"
        return f"{names[0]}, {size}" + (f": {_hex(parts[0])}" if parts[0] else "")
    return f"{len(parts)} tokens: " + ", ".join(
        f"{name} ({_hex(part) or 'no byte'})" for name, part in zip(names, parts, strict=True)
    )


def _hex(data: bytes) -> str:
    return data[:SHOWN_BYTES].hex(" ") + (" …" if len(data) > SHOWN_BYTES else "")


def visible(text: str) -> Markup:
    """Text whose blanks, tabs and line ends carry a class by which the style sheet draws them."""
    return Markup(_ODD.sub(_marked, str(escape(text))))


def _marked(found: re.Match) -> str:
    if found[0] in _CLASSES:
        return f'<i class="{_CLASSES[found[0]]}">{found[0]}</i>'
    return f'<i class="u" data-c="U+{ord(found[0]):04X}"></i>'


def seen(text: str) -> str:
    """Text with the characters of `UNSEEN` written by number."""
    return re.sub(f"[{UNSEEN}]", lambda m: f"[U+{ord(m[0]):04X}]", text)


def summary(cut: Cut, given: int, unknown: int | None) -> str:
    """The line above a text of so many bytes, before normalisation."""
    tokens = len(cut.ids)
    parts = [f"{tokens:,} token{'' if tokens == 1 else 's'}"]
    if tokens:
        parts.append(f"{given / tokens:.2f} bytes a token")
    if missed := sum(id_ == unknown for id_ in cut.ids):
        parts.append(f"{missed:,} unknown")
    if cut.origin is not None:
        parts.append("shown as normalised")
    return ", ".join(parts)


def arrays(texts: Sequence[dict], encoders: dict[str, Encoder]) -> tuple[dict, list[list[Cut]]]:
    """What the script draws from, and the same as cuts: [text][tokenizer].

    Sizes are those of the tokens in bytes; `gaps`, `text` and `origin` are there only where they say something.
    """
    cutters = {name: Cutter(encoder) for name, encoder in encoders.items()}
    by_name = [cutter.cut([text["text"] for text in texts]) for cutter in cutters.values()]
    cuts = [list(row) for row in zip(*by_name, strict=True)]
    unknowns = [encoder.unknown for encoder in encoders.values()]
    data = {
        "names": list(encoders),
        "unknown": unknowns,
        "odd": UNSEEN,
        "hues": HUES,
        "shown_bytes": SHOWN_BYTES,
        "texts": [{"name": name_of(text), "text": text["text"]} for text in texts],
        "cuts": [
            [_packed(cut, text["text"], unknown) for cut, unknown in zip(row, unknowns, strict=True)]
            for row, text in zip(cuts, texts, strict=True)
        ],
    }
    return data, cuts


def name_of(text: dict) -> str:
    """How the page calls a text."""
    lang = f" ({text['lang']})" if text.get("lang") else ""
    return f"{text['source']}{lang}: {text['id']}" if text.get("source") else f"{text['id']}{lang}"


def _packed(cut: Cut, given: str, unknown: int | None) -> dict:
    ends = [0, *(end for _, end in cut.spans)]
    gaps = [start - end for (start, _), end in zip(cut.spans, ends, strict=False)]
    packed: dict = {
        "told": summary(cut, len(given.encode()), unknown),
        "ids": cut.ids,
        "sizes": [end - start for start, end in cut.spans],
    }
    if any(gaps):
        packed["gaps"] = gaps
    if cut.origin is not None:
        packed["text"] = cut.text
        packed["origin"] = [end for span in cut.origin for end in span]
    return packed
