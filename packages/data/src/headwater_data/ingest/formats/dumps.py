"""Dumps of sites and of mail: MediaWiki XML, Stack Exchange XML, mbox."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage
from typing import IO
from xml.etree import ElementTree

from ..records import Malformed, Raw, Record
from ..sandbox import Refused
from .context import XML_ERRORS, Context


def read_mediawiki(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """Articles of a MediaWiki export (schema export-0.10 and 0.11): the last revision of each page of the main
    namespace; redirects are left out. Wikitext becomes plain text by mwparserfromhell."""
    number = 0
    try:
        for _, element in ElementTree.iterparse(stream, events=("end",)):
            if _local(element.tag) != "page":
                continue
            name, number = f"{key}#{number:06d}", number + 1
            page = {_local(child.tag): child for child in element}
            title = (page["title"].text or "") if "title" in page else ""
            space = page["ns"].text if "ns" in page else "0"
            revisions = [child for child in element if _local(child.tag) == "revision"]
            texts = [t.text or "" for r in revisions[-1:] for t in r if _local(t.tag) == "text"]
            if space == "0" and "redirect" not in page and texts:
                (answer,) = context.sandbox.map([("wikitext", texts[0].encode("utf-8", "replace"), None)])
                if isinstance(answer, Refused):
                    yield Malformed(name, answer.rule, answer.detail)
                else:
                    yield Raw(name, answer[0], "", {"title": title} if title else {})
            element.clear()
    except XML_ERRORS as e:
        yield Malformed(f"{key}#{number:06d}", "broken_xml", str(e)[:200])


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


_REFERENCE = re.compile(r"<ref\b[^>]*/>|<ref\b[^>]*>.*?</ref\s*>", re.S | re.I)
_MEDIA = re.compile(r"\.(?:jpe?g|png|svg|gif|tiff?|webp|xcf|djvu|pdf|og[gav]|webm|mp[34]|wav|flac|mid)$", re.I)
_REMAINS = re.compile(
    r"'{2,5}|__[A-Z]+__|</?(?:br|small|su[bp]|ref|div|span|center|blockquote|nowiki|[bisu])\b[^>]*>", re.I
)
_TABLE = re.compile(r"^\s*(?:\{\||\|\}|\|-|!|\|).*$", re.M)


def wikitext(text: str) -> str:
    """Wikitext to plain text: templates, references, tables, files and categories gone, links by their words, headings
    as lines."""
    import mwparserfromhell

    code = mwparserfromhell.parse(_REFERENCE.sub("", text), skip_style_tags=False)
    tags = code.filter_tags(matches=lambda node: str(node.tag) in ("ref", "gallery", "math", "timeline", "table"))
    for node in (*tags, *code.filter_wikilinks(matches=_no_words)):
        try:
            code.remove(node)
        except ValueError:  # it went with one around it
            continue
    plain = code.strip_code(normalize=True, collapse=True, keep_template_params=False)
    lines = "\n".join(line.strip() for line in _TABLE.sub("", _REMAINS.sub("", plain)).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def _no_words(link) -> bool:
    """Whether a link is no part of a sentence: a file, a category, the article in another language. The namespaces'
    names are each wiki's own, so a file is known by its ending, the others by their bare `Name:title`."""
    title = str(link.title).strip()
    if _MEDIA.search(title):
        return True
    space, colon, name = title.partition(":")
    return bool(space and colon and link.text is None and not name.startswith(" "))


def read_stackexchange(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """A question with its answers as one document (Posts.xml of the Stack Exchange dump), answers in the order of their
    scores. Posts come by id, so a question is given once the file ends; in memory are the posts' texts."""
    questions: dict[str, tuple[str, str, int]] = {}
    answers: dict[str, list[tuple[int, str]]] = {}
    broken = None
    try:
        for _, row in ElementTree.iterparse(stream, events=("end",)):
            if _local(row.tag) != "row":
                continue
            post = row.attrib
            if post.get("PostTypeId") == "1":
                score = _number(post.get("Score"))
                questions[post.get("Id", "")] = post.get("Title", ""), post.get("Body", ""), score
            elif post.get("PostTypeId") == "2":
                answers.setdefault(post.get("ParentId", ""), []).append(
                    (_number(post.get("Score")), post.get("Body", ""))
                )
            row.clear()
    except XML_ERRORS as e:
        broken = Malformed(f"{key}#end", "broken_xml", str(e)[:200])
    for id_, (title, body, score) in questions.items():
        found = sorted(answers.get(id_, []), key=lambda a: -a[0])
        bodies = [body, *(a for _, a in found)]
        texts = context.sandbox.map([("fragment", b.encode("utf-8", "replace"), "utf-8") for b in bodies])
        plain = [t[0].strip() for t in texts if not isinstance(t, Refused)]
        if len(plain) < len(texts):
            yield Malformed(f"{key}#{id_}", "unreadable_page", f"{len(texts) - len(plain)} of its posts")
        if plain:
            text = "\n\n".join([f"Q: {title}\n\n{plain[0]}", *(f"A: {a}" for a in plain[1:] if a)])
            yield Raw(f"{key}#{id_}", text, "", {"title": title, "score": score, "answers": len(found)})
    if broken is not None:
        yield broken


def _number(value: str | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0


_FROM = re.compile(rb"^From \S+.*\d{4}\s*$")
_QUOTED = re.compile(r"^\s*(?:>|\|)+")
_ATTRIBUTION = re.compile(r"^(?:-+ ?)?(?:On|Am|Le|El|Il|Em|Op|Den|Dnia|W dniu|\d{1,4}[./-]\d{1,2}[./-]\d{1,4})\b", re.I)
_WROTE = re.compile(
    r"(?:wrote|schrieb|a écrit|escribió|ha scritto|escreveu|schreef|skrev|napisał(?:\(?a\)?)?|написал\(?а?\)?)"
    r"\s?[:,]?\s*-*\s*$",
    re.I,
)
_ORIGINAL = re.compile(
    r"^\s*-+ ?(?:Original Message|Forwarded message|Ursprüngliche Nachricht|Message d'origine) ?-+\s*$", re.I
)
_APP = re.compile(r"^\s*Sent (?:from|via|with) (?:my )?\S+(?: \S+){0,5}\s*$")
_HEADER = re.compile(
    r"^\s*\*?(From|Sent|Date|To|Cc|Subject|Von|Gesendet|Datum|An|Betreff|De|Envoyé|À|Objet|Enviado|Para|Asunto|Da|Inviato|A"
    r"|Oggetto|Van|Verzonden|Aan|Onderwerp|Från|Skickat|Till|Ämne|Fra|Til|Emne|От|Кому|Тема):\*?(?:\s|$)",
    re.I,
)


def read_mbox(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """Messages of an mbox file (RFC 4155): subject and the words of the sender, without quotes and signature."""
    message: list[bytes] = []
    number = size = 0
    too_large = False
    for line in stream:
        if _FROM.match(line) and (not message or message[-1] in (b"\n", b"\r\n")):
            if message or too_large:
                yield _message(b"".join(message), f"{key}#{number:06d}", too_large, context)
                number += 1
            message, size, too_large = [], 0, False
            continue
        size += len(line)
        if size > context.config.max_page_bytes:
            message, too_large = [b"\n"], True
        elif not too_large:
            message.append(line[1:] if line.startswith(b">From ") else line)
    if message or too_large:
        yield _message(b"".join(message), f"{key}#{number:06d}", too_large, context)


def read_mail(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """One message (RFC 5322) in a file of its own."""
    data = stream.read(context.config.max_page_bytes + 1)
    yield _message(data, key, len(data) > context.config.max_page_bytes, context)


def _message(data: bytes, name: str, too_large: bool, context: Context) -> Record:
    if too_large:
        return Malformed(name, "page_too_large", f"more than {context.config.max_page_bytes} bytes")
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        part = message.get_body(("plain", "html"))
        body = part.get_content() if part is not None else ""
        if part is not None and part.get_content_type() == "text/html":
            (answer,) = context.sandbox.map([("fragment", body.encode("utf-8", "replace"), "utf-8")])
            body = "" if isinstance(answer, Refused) else answer[0]
        subject, date = str(message.get("Subject", "")), str(message.get("Date", ""))
    except Exception as e:  # the email package raises what it meets in a broken header: LookupError, TypeError, ...
        return Malformed(name, "broken_mail", type(e).__name__)
    text = own_words(body)
    if not text:
        return Malformed(name, "empty", "nothing but quotes, signature or attachments")
    meta = {k: v for k, v in (("title", subject), ("date", date)) if v}
    return Raw(name, f"{subject}\n\n{text}" if subject else text, "", meta)


def own_words(body: str) -> str:
    """A message without what it quotes (lines with >, the lines that name the quoted one, all below a repeated header)
    and without its signature, which `-- ` begins (RFC 3676, section 4.3)."""
    kept: list[str] = []
    lines = body.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if line in ("-- ", "--") or _ORIGINAL.match(line) or _repeats_header(lines[at : at + 4]):
            break
        skipped = _attribution(lines[at : at + 3])
        if not skipped and not _QUOTED.match(line) and not _APP.match(line):
            kept.append(line.rstrip())
        at += skipped or 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _repeats_header(lines: list[str]) -> bool:
    """Whether these are the first lines of a quoted message's header, as Outlook and web mail write it."""
    return len(lines) > 2 and all(_HEADER.match(line) for line in lines[:3])


def _attribution(lines: list[str]) -> int:
    """How many lines say who wrote what follows (`On ..., A <a@b.org> wrote:`); 0 if these do not."""
    if not _ATTRIBUTION.match(lines[0]):
        return 0
    for count in range(1, len(lines) + 1):
        joined = " ".join(lines[:count])
        if len(joined) > 300:
            return 0
        if _WROTE.search(joined):
            return count
    return 0
