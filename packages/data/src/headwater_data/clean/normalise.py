"""Normalisation: each function takes a text and returns it with the number of its edits.

All are idempotent: a second pass changes nothing. A text that needs no edit costs one scan at most.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache

from .._contracts.errors import UserError

Edited = tuple[str, int]
"""A text and how many edits were made to it."""


def fix_mojibake(text: str) -> Edited:
    """Undo text that was decoded with the wrong charset, line by line (ftfy, Speer 2019).

    ftfy's own measure of badness decides which lines are looked at: 670 documents a second otherwise.
    """
    if text.isascii():
        return text, 0
    import ftfy
    from ftfy.badness import is_bad

    if not is_bad(text):
        return text, 0
    lines = text.split("\n")
    edits = 0
    for i, line in enumerate(lines):
        fixed = ftfy.fix_encoding(line)
        if fixed != line:
            lines[i] = fixed
            edits += 1
    return "\n".join(lines), edits


def normalise_form(text: str, form: str) -> Edited:
    """Unicode normal form NFC or NFKC (Unicode Standard Annex 15)."""
    if unicodedata.is_normalized(form, text):  # type: ignore[arg-type]
        return text, 0
    return unicodedata.normalize(form, text), 1  # type: ignore[arg-type]


# Controls but tab and line feed; soft hyphen, zero-width space, marks and overrides of direction, BOM, tags' fillers.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
# A joiner stands where a script needs it: after a letter or sign beyond Latin, Greek and Cyrillic, or in an emoji.
_JOINER = re.compile("(?<![\u0590-\u1cff\u2600-\u27bf\ufe0f\U00010a00-\U0001faff])[\u200c\u200d]+")


def remove_invisible(text: str) -> Edited:
    """Remove characters that show nothing and hide copies; joiners stay where a script needs them."""
    if text.isascii() and text.isprintable():
        return text, 0
    returns = text.count("\r")
    if returns:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, first = _INVISIBLE.subn("", text)
    text, second = _JOINER.subn("", text)
    return text, returns + first + second


_BLANKS = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LINE_ENDS = re.compile("[\u0085\u2028\u2029]")
_TRAILING = re.compile(r"[ \t]+(?=\n|$)")
_GAPS = re.compile(r"\n{3,}")


def normalise_blanks(text: str) -> Edited:
    """Unicode's blanks and line ends to plain ones, no blanks at line ends, one empty line at most."""
    edits = 0
    if not text.isascii():
        text, first = _BLANKS.subn(" ", text)
        text, second = _LINE_ENDS.subn("\n", text)
        edits = first + second
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        text, n = _TRAILING.subn("", text)
        edits += n
    if "\n\n\n" in text:
        text, n = _GAPS.subn("\n\n", text)
        edits += n
    return text, edits


_TAG = re.compile(
    r"</?(?:p|div|span|br|hr|b|i|u|em|strong|small|font|center|a|img|table|thead|tbody|tr|td|th|ul|ol|li|dl|dt|dd"
    r"|h[1-6]|blockquote|sup|sub)(?:\s+[\w:-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s<>\"']+))*\s*/?>|<!--.*?-->",
    re.I | re.S,
)
_ENTITY = re.compile(r"&(?:#\d{2,7}|#[xX][0-9a-fA-F]{2,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")
_BBCODE = re.compile(r"\[/?(?:b|i|u|s|url|img|quote|color|size|center|list)(?:=[^\]\n]{0,200})?\]", re.I)
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]+)\]\]")
_WIKI_MARK = re.compile(r"'{3,5}|\{\{[^{}\n]{0,500}\}\}")


def remove_markup(text: str) -> Edited:
    """Stray HTML tags and entities, BBCode, wiki links and marks: the words stay, the marks go."""
    edits = 0
    while True:  # an entity may hide a tag, and a tag another: until nothing changes
        before, n = text, 0
        if "&" in text:
            text = _ENTITY.sub(lambda m: html.unescape(m[0]), text)
            n += text != before
        for mark, pattern, keep in (("<", _TAG, ""), ("[", _BBCODE, ""), ("[[", _WIKI_LINK, r"\1")):
            if mark in text:
                text, found = pattern.subn(keep, text)
                n += found
        if "''" in text or "{{" in text:
            text, found = _WIKI_MARK.subn("", text)
            n += found
        if text == before:
            return text, edits
        edits += n


_MIXED = re.compile(r"\b\w*(?:[A-Za-z]\w*[\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff]\w*[A-Za-z])\w*\b")
_SCRIPTS = (("LATIN", re.compile("[A-Za-z]")), ("CYRILLIC", re.compile("[\u0400-\u04ff]")),
            ("GREEK", re.compile("[\u0370-\u03ff]")))  # fmt: skip


@cache
def confusables(script: str) -> dict[str, str]:
    """Letters of other scripts -> the one letter of this script that Unicode (UTS 39) calls confusable with it."""
    from confusable_homoglyphs.confusables import confusables_data

    table: dict[str, str] = {}
    pattern = dict(_SCRIPTS)[script]
    for letter, entries in confusables_data.items():
        if len(letter) != 1 or not letter.isalpha() or pattern.match(letter):
            continue
        own = [e["c"] for e in entries if len(e["c"]) == 1 and pattern.match(e["c"]) and e["c"].isalpha()]
        same_case = [c for c in own if c.isupper() == letter.isupper()]
        if same_case:
            table[letter] = min(same_case)
    return table


def fix_homoglyphs(text: str) -> Edited:
    """Words of mixed script to the script of most of their letters; words of one script are left alone.

    A word changes only if every foreign letter in it has a double and its own letters are more: formulas such as Δx
    stay.
    """
    if text.isascii():
        return text, 0
    edits = 0

    def fix(match: re.Match[str]) -> str:
        nonlocal edits
        word = match[0]
        counts = sorted(((len(pattern.findall(word)), name) for name, pattern in _SCRIPTS), reverse=True)
        if counts[0][0] <= counts[1][0]:
            return word
        own, table = dict(_SCRIPTS)[counts[0][1]], confusables(counts[0][1])
        foreign = [c for c in word if c.isalpha() and not own.match(c) and any(p.match(c) for _, p in _SCRIPTS)]
        if not all(c in table for c in foreign):
            return word
        edits += 1
        return "".join(table[c] if c in foreign else c for c in word)

    return _MIXED.sub(fix, text), edits


_EMOTICONS = {
    ":-)": "smile", ":)": "smile", ";-)": "wink", ";)": "wink", ":-(": "sad", ":(": "sad", ":-D": "laugh",
    ":D": "laugh", ":-P": "tongue out", ":P": "tongue out", ":'(": "crying", "<3": "heart",
    ":-O": "surprise", ":-/": "sceptical",
}  # fmt: skip
_EMOTICON = re.compile(r"(?<!\S)(?:" + "|".join(re.escape(e) for e in _EMOTICONS) + r")(?!\S)")


def name_emoji(text: str) -> Edited:
    """Emoji and emoticons to their names in words (emoji's English CLDR names)."""
    text, edits = _EMOTICON.subn(lambda m: _EMOTICONS[m[0]], text)
    if text.isascii():
        return text, edits
    import emoji

    found = emoji.emoji_count(text)
    if not found:
        return text, edits
    named = emoji.replace_emoji(text, lambda e, data: f" {data['en'].strip(':').replace('_', ' ')} ")
    return re.sub(r" {2,}", " ", named), edits + found


@cache
def corrections() -> dict[str, str]:
    """codespell's misspellings that have one correction and no caveat, lower case.

    Raises:
        UserError: codespell is not installed.
    """
    from importlib.resources import files

    try:
        dictionary = (files("codespell_lib") / "data" / "dictionary.txt").read_text("utf-8")
    except ModuleNotFoundError:
        raise UserError(
            "clean.steps.misspellings: codespell is not installed; pip install 'headwater-data[spelling]'"
        ) from None
    table = {}
    for line in dictionary.splitlines():
        wrong, arrow, right = line.partition("->")
        if arrow and "," not in right and right.isalpha():
            table[wrong.strip().lower()] = right.strip()
    return {wrong: right for wrong, right in table.items() if right.lower() not in table}


_ENGLISH_WORD = re.compile(r"\b[A-Za-z]{4,}\b")


def correct_misspellings(text: str) -> Edited:
    """Common misspellings, the word's case kept (lower, Capital, UPPER; others are names and stay)."""
    table = corrections()
    edits = 0

    def fix(match: re.Match[str]) -> str:
        nonlocal edits
        word = match[0]
        right = table.get(word.lower())
        if right is None or not (word.islower() or word.isupper() or word.istitle()):
            return word
        edits += 1
        return right if word.islower() else right.upper() if word.isupper() else right.capitalize()

    return _ENGLISH_WORD.sub(fix, text), edits
