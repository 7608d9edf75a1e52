"""What a chapter is made of. HTML and Markdown are two renderings of these few blocks, so they cannot disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Something that is absent, stale, failed, or worse than the baseline; set apart from the rest."""

    text: str


@dataclass(frozen=True)
class Fact:
    """One headline number."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Facts:
    """Headline numbers, read left to right."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Table:
    """Rows of ready-made text; column names that start with `#` hold numbers and are set flush right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def heads(self) -> list[tuple[str, bool]]:
        """(name, whether it holds numbers) a column."""
        return [(name.removeprefix("#"), name.startswith("#")) for name in self.columns]


@dataclass(frozen=True)
class Figure:
    """A picture that is drawn at the width at which it will be read, in CSS pixels; Markdown leaves it out."""

    caption: str
    draw: Callable[[int], Markup]


@dataclass(frozen=True)
class Sample:
    """Text that was found or generated: a heading and the text as it is."""

    title: str
    text: str
    remark: str = ""


@dataclass(frozen=True)
class Samples:
    """Samples side by side that belong together, under what they share (a prompt, a rule)."""

    title: str
    shared: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Details:
    """Blocks that only some readers want; closed at first."""

    summary: str
    blocks: Sequence[Block]


Block = Text | Notice | Facts | Table | Figure | Samples | Details


@dataclass
class Section:
    """A chapter: `anchor` names it in links."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)
