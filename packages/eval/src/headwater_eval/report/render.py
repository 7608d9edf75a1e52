"""The document as one HTML page and as Markdown.

Every string that comes from an artefact is untrusted: a removed web page, a model's output, a source's name.
HTML: jinja2 escapes all of it, pictures escape theirs, and the page's content security policy allows no
script, no form and no request. Markdown: `escaped` for inline text, a fence longer than any in the text for
samples. In both, control and invisible characters are made visible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from .document import Block, Details, Facts, Figure, Notice, Samples, Section, Table, Text
from .units import safe_text

WIDE, NARROW = 720, 336  # CSS pixels: the text column of a desktop window, and of a phone less its margins

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")


def html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """A self-contained page: styles and pictures inline, no script."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else safe_text(value),
    )
    template = environment.get_template("report.html.j2")
    kind = {"kind": lambda block: type(block).__name__.lower()}
    return template.render(title=title, subtitle=subtitle, sections=sections, wide=WIDE, narrow=NARROW, **kind) + "\n"


def markdown(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The same chapters without pictures."""
    parts = [f"# {escaped(title)}", escaped(subtitle)]
    for section in sections:
        parts.append(f"## {escaped(section.title)}")
        for block in section.blocks:
            parts += _markdown_block(block)
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text as inline Markdown that reads as the text and starts no markup, in one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(safe_text(text).split()))


def fenced(text: str) -> str:
    """Text as a code block, whatever fences it holds."""
    text = safe_text(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _markdown_block(block: Block) -> list[str]:
    match block:
        case Text(text):
            return [escaped(text)]
        case Notice(text):
            return [f"> {escaped(text)}"]
        case Facts(facts):
            return ["\n".join(f"- {escaped(f.label)}: {escaped(f.value)}" + _remark(f.remark) for f in facts)]
        case Table():
            return [f"**{escaped(block.caption)}**", _markdown_table(block)]
        case Figure():
            return []
        case Samples(title, shared, samples):
            parts = [f"**{escaped(title)}**", *([fenced(shared)] if shared else [])]
            for sample in samples:
                parts += [f"{escaped(sample.title)}{_remark(sample.remark)}:", fenced(sample.text)]
            return parts
        case Details(summary, blocks):
            return [f"### {escaped(summary)}", *(part for inner in blocks for part in _markdown_block(inner))]
    raise TypeError(type(block))


def _remark(text: str) -> str:
    return f" ({escaped(text)})" if text else ""


def _markdown_table(table: Table) -> str:
    names = " | ".join(escaped(name) or " " for name, _ in table.heads)
    rule = " | ".join("---:" if numeric else "---" for _, numeric in table.heads)
    rows = (" | ".join(escaped(cell) for cell in row) for row in table.rows)
    return "\n".join(f"| {line} |" for line in (names, rule, *rows))
