"""Private data in a text: e-mail, phone, IP, payment cards, IBAN, identity numbers of seven countries, keys and tokens.

The training text is cleaned of it, and what a model writes is searched for it, by the same rules.

Each kind is looked for only in a text that holds its mark (an @, a run of digits), and counts only if its own check
holds (a number plan, a check digit, a routable address). Street addresses are not looked for: no rule finds them
without taking as many sentences along.

Wants phonenumbers and python-stdnum once a text holds what may be a number of theirs; the packages that look for
private data require both, the others carry this file and never import it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection, Iterator
from importlib import import_module

KINDS: tuple[str, ...] = ("email", "phone", "ip", "card", "iban", "national_id", "secret")

Span = tuple[int, int, str, str]
"""Start and end in characters, kind, value."""

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]{0,62}[\w+-])?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
    r"(?![\w@])"
)
_IPV4 = re.compile(r"(?<![\d.\w-])(?:\d{1,3}\.){3}\d{1,3}(?![\d\w]|\.\d|-\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,6}(?![\w:])")
_VERSION = re.compile(r"(?:version|release|v\.?|ver\.?|build|firmware|section|chapter|§)\s*$", re.I)
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){11,18}(?![\d-]|[.,]\d)")
_CARD_FORMS = re.compile(  # Visa, Mastercard, American Express, Discover, Diners Club, JCB, UnionPay
    r"4\d{12}(?:\d{3})?(?:\d{3})?|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
_CARD_FORMS_BY_WORD = re.compile(r"(?:5[06-8]|6\d)\d{10,17}|(?:1800|2131)\d{11}")
"""Maestro's and JCB's old ones: so wide that a card must be spoken of before."""
_CARD_WORD = re.compile(r"\b(?:card|cc|credit|debit|maestro)\b[^\n]*$", re.I)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_NATIONAL_IDS = {
    ("us.ssn",): r"\d{3}-\d{2}-\d{4}",
    ("br.cpf",): r"\d{3}\.\d{3}\.\d{3}-\d{2}",
    ("es.dni",): r"\d{8}-?[A-Z]",
    ("es.nie",): r"[XYZ]\d{7}-?[A-Z]",
    ("fi.hetu", "se.personnummer"): r"\d{6}[-+A]\d{3}[0-9A-Y]",
    ("fr.nir",): r"[12] ?\d\d ?[0-3]\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d",
}
"""python-stdnum's checks, and the shape in which people write these numbers: enough to be told from other ones."""
_NATIONAL_ID = re.compile(
    r"(?<![\w.-])(?:" + "|".join(rf"({form})(?![\w-]|\.\d)" for form in _NATIONAL_IDS.values()) + ")"
)
_NATIONAL_CHECKS = tuple(_NATIONAL_IDS)
_CODICE_FISCALE = re.compile(r"(?<=[A-Z]{6})\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z](?!\w)")  # from its digits: rarer
_PHONE = re.compile(
    r"((?:(?<![\w.,/#-])(?<!\d:)(?:\(|00)?|(?<![\w+])\+)\d[\d\s().-]{6,18}\d)(?:\s?(?:x|ext\.?)\s?\d{1,7})?(?!\w|[.,-]\d)"
)
_DATE = re.compile(r"(?:19|20)\d\d[-. ][01]?\d[-. ][0-3]?\d|[0-3]?\d[-. ][0-3]?\d[-. ](?:19|20)\d\d")
_PHONE_WORD = re.compile(
    r"(?<![\w<])(?:(?:tele|smart)?phone|tel|telefon|t[eé]l[eé]phone|tel[eé]fono|call|mobile?|cell|fax|hotline|handy|sms|whatsapp)\b"
    r"[^\d]{0,16}$",
    re.I,
)
_PHONE_WORD_AFTER = re.compile(r"[\s,:/-]{1,3}(?:office|mobile|cell|fax|phone)\b", re.I)
_PLANS = ("GB", "DE", "FR", "ES", "IT", "NL", "PL", "IN", "AU", "BR")
"""Number plans, besides the region's, that a number without country code may be of, where a phone is spoken of."""
_NOT_A_PHONE = re.compile(r"(?:isbn|issn|doi|rfc|order|invoice|ticket|bug|id|no\.?|serial|pmid|arxiv|#)[\s:#]*$", re.I)
_SECRETS = tuple(
    (mark, re.compile(form))
    for mark, form in (
        (
            "-----BEGIN ",
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----\s+(?:[\w-]+: [^\n]*\n\s*)*(?:[A-Za-z0-9+/=]{16,}\s*)+"
            r"(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?",
        ),
        ("AKIA", r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
        ("ASIA", r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("gh", r"gh[pousr]_[A-Za-z0-9]{36,}"),  # GitHub
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{60,}"),
        ("AIza", r"AIza[\w-]{35}(?![\w-])"),  # Google
        ("sk-", r"sk-(?:[a-z]+-)?[A-Za-z0-9_-]{32,}"),  # OpenAI, Anthropic and their like
        ("k_live_", r"k_live_[A-Za-z0-9]{16,}"),  # Stripe
        ("xox", r"xox[abprs]-[A-Za-z0-9-]{10,}"),  # Slack
        ("glpat-", r"glpat-[\w-]{20}"),  # GitLab
        ("hf_", r"hf_[A-Za-z0-9]{30,}"),  # Hugging Face
        ("eyJ", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),  # JSON web token
    )
)
"""A mark that every key of a form holds, and the form: a search for plain text first is a hundred times faster."""
_DIGIT_RUN = re.compile(r"\d[\d ().:-]{5,}")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_CAPITALS_DIGITS = re.compile(r"[A-Z]{2}\d\d")


def find_private(text: str, kinds: Collection[str] = KINDS, region: str = "US") -> list[Span]:
    """Private data in a text, in order, without overlaps; of two that overlap the longer one counts.

    Args:
        kinds: what to look for, of KINDS.
        region: ISO code whose number plan reads a phone number without country code.
    """
    found: list[Span] = []
    if "secret" in kinds:
        for token, form in _SECRETS:
            if token in text:
                found += [
                    (m.start(), m.end(), "secret", m[0])
                    for m in form.finditer(text)
                    if token == "k_live_" or not text[max(m.start() - 1, 0) : m.start()].isalnum()
                ]
    if "email" in kinds and "@" in text:
        found += [(m.start(), m.end(), "email", m[0]) for m in _EMAIL.finditer(text)]
    if "ip" in kinds and _COLONS.search(text):
        found += _addresses(text, _IPV6, 0, len(text))
    if ("iban" in kinds or "national_id" in kinds) and _CAPITALS_DIGITS.search(text):
        found += _ibans(text) if "iban" in kinds else ()
        found += _codici_fiscali(text) if "national_id" in kinds else ()
    for run in _DIGIT_RUN.finditer(text):  # the forms below are slow on prose, and live in runs of digits only
        start, end = max(run.start() - 3, 0), min(run.end() + 20, len(text))
        if "ip" in kinds:
            found += _addresses(text, _IPV4, start, end)
        if "card" in kinds:
            found += _cards(text, start, end)
        if "national_id" in kinds:
            found += _national_ids(text, start, end)
        if "phone" in kinds:
            found += _phones(text, region, start, end)
    taken: list[Span] = []
    for span in sorted(found, key=lambda s: (s[0] - s[1], s[0])):
        if all(span[1] <= start or span[0] >= end for start, end, _, _ in taken):
            taken.append(span)
    return sorted(taken)


def mask(text: str, spans: list[Span], key: str = "") -> str:
    """Replace spans by `<KIND>`, or, with a key, by `<KIND:six hex digits>`, the same for the same value."""
    pieces, at = [], 0
    for start, end, kind, value in spans:
        pieces += [text[at:start], f"<{kind.upper()}{_pseudonym(kind, value, key)}>"]
        at = end
    return "".join([*pieces, text[at:]])


def _pseudonym(kind: str, value: str, key: str) -> str:
    if not key:
        return ""
    plain = value.lower() if kind in ("email", "secret") else re.sub(r"[\s().-]", "", value)
    return ":" + hashlib.blake2b(plain.encode(), key=key.encode()[:64], digest_size=3).hexdigest()


def _addresses(text: str, pattern: re.Pattern[str], start: int, end: int) -> Iterator[Span]:
    """Global addresses: private, loopback, documentation and the like are nobody's."""
    for m in pattern.finditer(text, start, end):
        try:
            address = ipaddress.ip_address(m[0])
        except ValueError:
            continue
        if not address.is_global or address.is_multicast:
            continue
        section = address.version == 4 and max(address.packed) < 32  # 6.4.4.4 is one of a manual's, or a resolver
        if not section and not _VERSION.search(text, max(m.start() - 12, 0), m.start()):
            yield m.start(), m.end(), "ip", m[0]


def _cards(text: str, start: int, end: int) -> Iterator[Span]:
    """Numbers of a known issuer's form (ISO/IEC 7812) whose Luhn digit is right."""
    for m in _CARD.finditer(text, start, end):
        digits = re.sub(r"\D", "", m[0])
        form = _CARD_FORMS.fullmatch(digits) or (
            _CARD_FORMS_BY_WORD.fullmatch(digits) and _CARD_WORD.search(text, max(m.start() - 40, 0), m.start())
        )
        if form and len(set(digits)) > 1 and luhn(digits):
            yield m.start(), m.end(), "card", m[0]


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for i, c in enumerate(reversed(digits)):
        value = int(c) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _ibans(text: str) -> Iterator[Span]:
    """Account numbers with a country's length and a right check sum (ISO 13616)."""
    for m in _IBAN.finditer(text):
        from stdnum import iban

        value = m[0]
        while value:  # the last group may be the next word
            if iban.is_valid(value):
                yield m.start(), m.start() + len(value), "iban", value
                break
            value = value.rpartition(" ")[0]


def _national_ids(text: str, start: int, end: int) -> Iterator[Span]:
    """Identity numbers of a country's form whose dates and check digits are right."""
    for m in _NATIONAL_ID.finditer(text, start, end):
        checks = _NATIONAL_CHECKS[(m.lastindex or 1) - 1]
        if any(import_module(f"stdnum.{check}").is_valid(m[0]) for check in checks):
            yield m.start(), m.end(), "national_id", m[0]


def _codici_fiscali(text: str) -> Iterator[Span]:
    for m in _CODICE_FISCALE.finditer(text):
        start, value = m.start() - 6, text[m.start() - 6 : m.end()]
        if not text[max(start - 1, 0) : start].isalnum() and import_module("stdnum.it.codicefiscale").is_valid(value):
            yield start, m.end(), "national_id", value


def _phones(text: str, region: str, start: int, end: int) -> Iterator[Span]:
    """Numbers that a country's plan knows (phonenumbers); without + they need the shape that people write them in, or a
    word such as phone or fax beside them."""
    for m in _PHONE.finditer(text, start, end):
        begin = m.start() + (m[1].startswith("(") and ")" not in m[1])  # a number in brackets
        found = text[begin : m.end(1)]
        digits = sum(c.isdecimal() for c in found)
        if (
            not 8 <= digits <= 15
            or "\n" in found
            or _DATE.fullmatch(found)
            or _NOT_A_PHONE.search(text, max(begin - 10, 0), begin)
        ):
            continue
        plans: tuple[str, ...] = (region,)
        if not found.startswith(("+", "00")):
            if _PHONE_WORD.search(text, max(begin - 30, 0), begin) or _PHONE_WORD_AFTER.match(text, m.end()):
                plans = (region, *_PLANS)
            elif not _LOCAL_SHAPE.fullmatch(found):
                continue
        if any(_in_plan(found, plan) for plan in plans):
            yield begin, m.end(), "phone", text[begin : m.end()]


def _in_plan(found: str, region: str) -> bool:
    import phonenumbers

    written = "+" + found[2:] if found.startswith("00") else found
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(written, region))
    except phonenumbers.NumberParseException:
        return False


_LOCAL_SHAPE = re.compile(r"\(\d{2,5}\)[ -]?\d{3,4}[ -.]?\d{3,5}|\d{3}[-.]\d{3}[-.]\d{4}|1[-.]\d{3}[-.]\d{3}[-.]\d{4}")
