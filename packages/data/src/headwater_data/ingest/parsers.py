"""What runs in the sandbox: (kind, bytes, charset) to (text, title). Imports only what the kind needs.

`resiliparse` is the default: 890 pages a second and core against 48 of trafilatura, at the price of a little more
boilerplate (docs/extract.md has what each keeps and loses against gold text). `trafilatura` and `justext` are choices.
"""

from __future__ import annotations

from .html import decode, main_text

Task = tuple[str, bytes, str | None]


def parse(task: Task) -> tuple[str, str]:
    """Text and title.

    Raises:
        ValueError: the kind is unknown; and whatever the libraries raise.
    """
    kind, data, charset = task
    if kind == "resiliparse":
        return main_text(decode(data, charset))
    if kind == "fragment":
        return fragment(decode(data, charset)), ""
    if kind == "trafilatura":
        return _trafilatura(decode(data, charset))
    if kind == "justext":
        return _justext(decode(data, charset))
    if kind == "wikitext":
        from .formats.dumps import wikitext

        return wikitext(data.decode("utf-8", "replace")), ""
    if kind == "latex":
        from .formats.papers import latex

        return latex(data.decode("utf-8", "replace"))
    raise ValueError(kind)


def fragment(html: str) -> str:
    """All text of a piece of HTML: a post or a mail has no boilerplate around it."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    return extract_plain_text(tree, main_content=False, preserve_formatting=True, alt_texts=False, links=False)


def _trafilatura(html: str) -> tuple[str, str]:
    import trafilatura

    found = trafilatura.bare_extraction(html, favor_precision=False, include_comments=False, with_metadata=True)
    return ("", "") if found is None or isinstance(found, dict) else (found.text or "", found.title or "")


def _justext(html: str) -> tuple[str, str]:
    import justext

    paragraphs = justext.justext(html.encode("utf-8", "replace"), justext.get_stoplist("English"), encoding="utf-8")
    good = [p.text for p in paragraphs if not p.is_boilerplate]
    title = next((p.text for p in paragraphs if p.is_heading), "")
    return "\n\n".join(good), title
