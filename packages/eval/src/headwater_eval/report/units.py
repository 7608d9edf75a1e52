"""Numbers as a reader wants them, and text that cannot harm the page that shows it."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TypeGuard

NONE = "\N{EN DASH}"

# Control characters break XML; bidirectional overrides and other format characters can reorder or hide the
# text around them. Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji need them.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff]"
)


def count(value: float | None) -> str:
    """1234567 -> 1,234,567."""
    return NONE if not finite(value) else f"{round(value):,}"


def short_count(value: float | None) -> str:
    """1234567 -> 1.23 M."""
    if not finite(value):
        return NONE
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:.0f} {unit}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def size(value: float | None) -> str:
    """Bytes in powers of ten: 61234567 -> 61.2 MB."""
    if not finite(value):
        return NONE
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}" if value < 100 * limit else f"{value / limit:,.0f} {unit}"
    return f"{value:.0f} B"


def seconds(value: float | None) -> str:
    """4.21 -> 4.2 s; 552 -> 9 min 12 s; 4000 -> 1 h 07 min."""
    if not finite(value):
        return NONE
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(value: float | None, digits: int = 1) -> str:
    """0.1234 -> 12.3%; what is little but not nothing -> <0.1%."""
    if not finite(value):
        return NONE
    least = 10.0**-digits
    return f"<{least:.{digits}f}%" if 0 < 100 * value < least / 2 else f"{100 * value:.{digits}f}%"


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits, no exponent where the number is short enough, no zeros at the end: 0.00123, 3.142, 0.5."""
    if not finite(value):
        return NONE
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude >= 12:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:,.{max(0, digits - 1 - magnitude)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "\N{MINUS SIGN}")


def fixed(value: float | None, digits: int = 3) -> str:
    """A fixed number of decimals, with a real minus sign."""
    return NONE if not finite(value) else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, digits: int = 3) -> str:
    """Like `fixed`, with a plus sign where it is positive."""
    return NONE if not finite(value) else ("+" if value > 0 else "") + fixed(value, digits)


def finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that can be shown or drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def safe_text(text: str) -> str:
    """The text with unpaired surrogates and control, bidirectional and invisible characters made visible."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _UNSAFE.sub(lambda m: f"[U+{ord(m[0]):04X}]", text)


def cut(text: str, characters: int) -> str:
    """At most `characters` characters, a cut marked by an ellipsis, never between a letter and its accent."""
    if len(text) <= characters:
        return text
    end = characters
    while end > 1 and unicodedata.combining(text[end]):
        end -= 1
    return text[:end].rstrip() + " \N{HORIZONTAL ELLIPSIS}"
