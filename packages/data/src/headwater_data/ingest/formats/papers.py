"""Papers: LaTeX sources, JATS and PubMed XML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.entities import html5
from typing import IO
from xml.etree import ElementTree

from ..records import Malformed, Raw, Record
from ..sandbox import Refused
from .context import XML_ERRORS, Context, whole_text

_COMMENT = re.compile(r"(?<!\\)%.*$", re.M)
_DROPPED = re.compile(
    r"\\begin\{(figure|table|tabular|thebibliography|tikzpicture|filecontents)\*?\}.*?\\end\{\1\*?\}"
    r"|\\(?:bibliography|bibliographystyle|label|input|include|vspace|hspace|usepackage)\*?"
    r"(?:\[[^\]]*\])?\{[^}]*\}", re.S
)  # fmt: skip
_SECTION = re.compile(r"\\(?:part|chapter|(?:sub)*section|paragraph)\*?(?:\[[^\]]*\])?\{([^{}]*)\}")


def read_latex(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """The body of a paper as text: comments, preamble, figures, tables and bibliography go, headings are lines,
    formulas stay as LaTeX (as The Pile's arXiv part keeps them)."""
    data = stream.read(context.config.max_page_bytes + 1)
    source = whole_text(data)
    if source is None or len(data) > context.config.max_page_bytes:
        yield Malformed(key, "not_text" if source is None else "page_too_large", f"{len(data)} bytes")
        return
    (answer,) = context.sandbox.map([("latex", source.encode("utf-8", "replace"), None)])
    if isinstance(answer, Refused):
        yield Malformed(key, answer.rule, answer.detail)
    else:
        yield Raw(key, answer[0], "", {"title": answer[1]} if answer[1] else {})


def latex(source: str) -> tuple[str, str]:
    """(text, title) of a LaTeX source."""
    from pylatexenc.latex2text import LatexNodes2Text

    source = _COMMENT.sub("", source)
    title = re.search(r"\\title(?:\[[^\]]*\])?\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", source)
    body = source.partition("\\begin{document}")[2] or source
    body = body.partition("\\end{document}")[0]
    body = _SECTION.sub(r"\n\n\1\n\n", _DROPPED.sub("", body).replace("\\maketitle", ""))
    convert = LatexNodes2Text(math_mode="verbatim", keep_comments=False, strict_latex_spaces=False)
    text = convert.latex_to_text(body, tolerant_parsing=True)
    lines = "\n".join(line.strip() for line in text.split("\n"))
    named = " ".join(convert.latex_to_text(title[1]).split()) if title else ""
    return re.sub(r"\n{3,}", "\n\n", lines).strip(), named


_ENTITIES = {name.removesuffix(";"): text for name, text in html5.items()}
"""Which JATS's DTD names as HTML does, and which is not fetched."""
_SKIPPED = {"ref-list", "table-wrap", "fig", "xref", "tex-math", "inline-graphic", "graphic", "supplementary-material"}


def read_jats(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """Articles of JATS (NISO Z39.96) or abstracts of PubMed's XML: title, abstract and body, without references,
    figures and tables; one document an article."""
    number = 0
    try:
        parser = ElementTree.XMLParser()
        parser.entity.update(_ENTITIES)
        for _, element in ElementTree.iterparse(stream, events=("end",), parser=parser):
            kind = element.tag.rpartition("}")[2]
            if kind not in ("article", "PubmedArticle"):
                continue
            record = _article(element, f"{key}#{number:06d}", kind)
            number += 1
            element.clear()
            yield record
    except XML_ERRORS as e:
        yield Malformed(f"{key}#{number:06d}", "broken_xml", str(e)[:200])


def _article(element: ElementTree.Element, name: str, kind: str) -> Record:
    if kind == "article":
        title = next((_flat(t) for t in element.findall(".//{*}article-title")), "")
        parts = [b for tag in ("abstract", "body") for part in element.findall(f".//{{*}}{tag}") for b in _blocks(part)]
    else:
        title = next((_flat(t) for t in element.iter("ArticleTitle")), "")
        parts = [_flat(t) for t in element.iter("AbstractText")]
    licence = next((_flat(t) for t in element.findall(".//{*}license")), "")[:300]
    text = "\n\n".join(p for p in parts if p)
    if not text:
        return Malformed(name, "empty", "neither abstract nor body")
    return Raw(
        name,
        f"{title}\n\n{text}" if title else text,
        "",
        {k: v for k, v in (("title", title), ("licence", licence)) if v},
    )


def _blocks(part: ElementTree.Element) -> list[str]:
    """Headings and paragraphs, in order; what lies in a table or figure is left out."""
    found = []
    for child in part:
        tag = child.tag.rpartition("}")[2]
        if tag in _SKIPPED:
            continue
        if tag in ("title", "p"):
            found.append(_flat(child))
        else:
            found += _blocks(child)
    return found


def _flat(element: ElementTree.Element) -> str:
    words = [element.text or ""]
    for child in element:
        if child.tag.rpartition("}")[2] not in _SKIPPED:
            words.append(_flat(child))
        words.append(child.tail or "")
    return re.sub(r"\s+([,.;:)\]])", r"\1", " ".join("".join(words).split()))
