"""Words with their morphemes from a hunspell dictionary (hunspell(5)): expert-made, for dozens of languages.

    LANG.dic   lock/AD                       un|lock|ed
    LANG.aff   PFX A Y 1      SFX D Y 1
               PFX A 0 un .   SFX D 0 ed [^ey]

A stem, and a prefix or suffix whose rule takes nothing off the stem, make a word whose boundaries are known. Rules that
strip letters (happy, happier) say no boundary and are passed over, as are second suffixes and compounds.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from headwater_tokenizer._contracts.errors import UserError

NOT_IN_WORDS = (b"ONLYINCOMPOUND", b"FORBIDDENWORD")
"""Options that name the flag of stems and affixes that make no word."""
NOT_ALONE = (b"NEEDAFFIX", b"PSEUDOROOT", b"CIRCUMFIX")
"""The same of affixes that make none without another one."""
_SLASH = re.compile(rb"(?<!\\)/")


@dataclass
class Rules:
    """The rules of one flag, on one side of the stem, that add to it and take nothing off."""

    crosses: bool
    """Whether they go with an affix on the other side."""
    by_condition: dict[re.Pattern, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What the stem must match -> the affixes that it takes then."""


@dataclass
class Affixes:
    """What a .aff file says."""

    encoding: str = "iso8859-1"
    flags_of: Callable[[bytes], list[bytes]] = lambda written: [written[i : i + 1] for i in range(len(written))]
    aliases: list[bytes] = field(default_factory=list)
    """Of AF: sets of flags, used by number from 1."""
    prefixes: dict[bytes, Rules] = field(default_factory=dict)
    suffixes: dict[bytes, Rules] = field(default_factory=dict)
    not_in_words: set[bytes] = field(default_factory=set)
    not_alone: set[bytes] = field(default_factory=set)

    def flags(self, written: bytes) -> frozenset[bytes]:
        """The flags in a field, an alias followed."""
        if self.aliases and written.isdigit():
            number = int(written)
            written = self.aliases[number - 1] if 0 < number <= len(self.aliases) else b""
        return frozenset(self.flags_of(written))

    def text(self, written: bytes) -> str:
        return written.replace(b"\\/", b"/").decode(self.encoding, errors="replace")


_FLAGS: dict[bytes, Callable[[bytes], list[bytes]]] = {
    b"long": lambda written: [written[i : i + 2] for i in range(0, len(written), 2)],
    b"num": lambda written: written.split(b","),
    b"UTF-8": lambda written: [character.encode() for character in written.decode(errors="replace")],
}


def parse_affixes(data: bytes, where: str = "") -> Affixes:
    """Read a .aff file; options that have no part in this are passed over.

    Raises:
        UserError: an encoding that Python does not know, or a rule of too few fields.
    """
    found = Affixes()
    if data.startswith(codecs.BOM_UTF8):
        data, found.encoding = data[3:], "utf-8"
    lines = [(number, line.split()) for number, line in enumerate(data.splitlines(), start=1)]
    lines = [(number, fields) for number, fields in lines if len(fields) > 1 and not fields[0].startswith(b"#")]
    for _, (option, value, *_) in lines:
        if option == b"SET":
            found.encoding = _encoding(value.decode("ascii", "replace"), where)
        elif option == b"FLAG":
            found.flags_of = _FLAGS.get(value, found.flags_of)
        elif option == b"AF":
            found.aliases.append(value)
        elif option in NOT_IN_WORDS:
            found.not_in_words.add(value)
        elif option in NOT_ALONE:
            found.not_alone.add(value)
    found.aliases = found.aliases[1:]  # the first says how many
    for number, (option, flag, *rest) in lines:
        if option not in (b"PFX", b"SFX"):
            continue
        if len(rest) < 2:
            raise UserError(f"{where} line {number}: an affix rule of only {len(rest) + 2} fields; fetch it again")
        side = found.prefixes if option == b"PFX" else found.suffixes
        if flag not in side:
            side[flag] = Rules(crosses=rest[0] == b"Y")
        else:
            _add_rule(found, side[flag], rest, option == b"SFX")
    return found


def _add_rule(affixes: Affixes, rules: Rules, fields: list[bytes], suffix: bool) -> None:
    """`STRIP AFFIX[/FLAGS] [CONDITION]`, unless it strips something, adds nothing, or makes no word."""
    strip, (added, *flags) = fields[0], _SLASH.split(fields[1], maxsplit=1)
    barred = affixes.not_in_words | affixes.not_alone
    if strip == b"0" and added != b"0" and not any(barred & affixes.flags(written) for written in flags):
        condition = affixes.text(fields[2]) if len(fields) > 2 and not fields[2].startswith(b"#") else "."
        rules.by_condition[_pattern(condition, suffix)].append(affixes.text(added))


@cache
def _pattern(condition: str, suffix: bool) -> re.Pattern:
    """A condition as a regular expression: characters, dots and sets, none of them with escapes."""
    parts = []
    for part in re.findall(r"\[\^?[^\]]*\]|.", condition, re.S):
        if len(part) == 1:
            parts.append(part if part == "." else re.escape(part))
        else:
            negated = part.startswith("[^")
            members = "".join(map(re.escape, part[2 if negated else 1 : -1]))
            parts.append(f"[{'^' * negated}{members}]" if members else "(?!)")
    return re.compile("".join(parts) + r"\Z" if suffix else r"\A" + "".join(parts), re.S)


def _encoding(name: str, where: str) -> str:
    try:
        return codecs.lookup(name.lower().removeprefix("microsoft-").replace("tis620-2533", "tis-620")).name
    except LookupError:
        raise UserError(f"{where}: encoding {name} is unknown to Python; convert the dictionary to UTF-8") from None


class Dictionary:
    """Stems and affixes, and the words that they make."""

    def __init__(self, stems: bytes, affixes: Affixes):
        """Read a .dic file."""
        self._affixes = affixes
        self.stems: dict[str, frozenset[bytes]] = {}
        """Stem -> flags of its affixes."""
        for line in stems.splitlines()[1:]:
            stem, *rest = _SLASH.split(line, maxsplit=1)
            flags = affixes.flags(rest[0].split(maxsplit=1)[0]) if rest and rest[0].split() else frozenset()
            if stem and flags and not flags & affixes.not_in_words:
                name = affixes.text(stem)
                self.stems[name] = self.stems.get(name, frozenset()) | flags
        self._before, self._after = _by_text(affixes.prefixes), _by_text(affixes.suffixes)

    def words_of(self, stem: str, number: int) -> str:
        """One of the words that a stem makes with one affix, or with one on each side, by any number; empty for none.

        Of words with something else than letters in them, and of those in capitals only, the next one is taken.
        """
        before, crossing_before = self._added(stem, self._affixes.prefixes)
        after, crossing_after = self._added(stem, self._affixes.suffixes)
        both = len(crossing_before) * len(crossing_after)
        most = len(before) + len(after) + both
        for at in range(number, number + most):
            at %= most
            if at < both:
                word = crossing_before[at // len(crossing_after)] + stem + crossing_after[at % len(crossing_after)]
            elif at < both + len(before):
                word = before[at - both] + stem
            else:
                word = stem + after[at - both - len(before)]
            if _is_word(word):
                return word
        return ""

    def _added(self, stem: str, side: dict[bytes, Rules]) -> tuple[list[str], list[str]]:
        """The affixes on one side that a stem takes, and those of them that go with one on the other."""
        found: list[str] = []
        crossing: list[str] = []
        met: dict[re.Pattern, bool] = {}
        for flag in sorted(self.stems[stem] & side.keys()):
            rules = side[flag]
            for pattern, texts in rules.by_condition.items():
                if pattern not in met:
                    met[pattern] = pattern.search(stem) is not None
                if met[pattern]:
                    found += texts
                    crossing += texts if rules.crosses else []
        return found, crossing

    def cuts(self, word: str) -> list[int]:
        """Every boundary that the dictionary knows in a word, as characters before it, ascending: `un|lock|ed`, though
        it has `unlock` and `unlocked`, too."""
        found: set[int] = set()
        for start in range(len(word)):
            prefixes = self._before.get(word[:start], []) if start else _NOTHING
            for end in range(start + 1, len(word) + 1) if prefixes else ():
                suffixes = self._after.get(word[end:], []) if end < len(word) else _NOTHING
                if suffixes and self._joins(prefixes, word[start:end], suffixes):
                    found |= {start, end}
        return sorted(found - {0, len(word)})

    def _joins(self, prefixes: list[_Affix], stem: str, suffixes: list[_Affix]) -> bool:
        """Whether a stem takes one of the prefixes and one of the suffixes together."""
        flags = self.stems.get(stem)
        if flags is None:
            return False
        before, after = (
            [affix for affix in side if affix.flag is None or (affix.flag in flags and affix.fits.search(stem))]
            for side in (prefixes, suffixes)
        )
        one_sided = prefixes is _NOTHING or suffixes is _NOTHING
        return any(one_sided or (p.crosses and s.crosses) for p in before for s in after)


@dataclass(frozen=True)
class _Affix:
    flag: bytes | None
    fits: re.Pattern
    crosses: bool


_NOTHING = [_Affix(None, re.compile(""), True)]
"""No affix on that side."""


def _by_text(side: dict[bytes, Rules]) -> dict[str, list[_Affix]]:
    found: dict[str, list[_Affix]] = defaultdict(list)
    for flag, rules in side.items():
        for pattern, texts in rules.by_condition.items():
            for text in texts:
                found[text].append(_Affix(flag, pattern, rules.crosses))
    return dict(found)


def draw(dictionary: Dictionary, most: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Some words, one of a stem, stems in the order of their hashes.

    A word whose morphemes melt together when composed (NFC; Korean is written in parts of syllables) is passed over.

    Returns:
        Word -> morphemes, words in order.
    """
    keys = {stem: _hash(stem, seed) for stem in dictionary.stems}
    found: dict[str, tuple[str, ...]] = {}
    for stem in sorted(keys, key=keys.__getitem__):
        word = dictionary.words_of(stem, keys[stem])
        ends = [*dictionary.cuts(word), len(word)]
        morphemes = [unicodedata.normalize("NFC", word[i:j]) for i, j in zip([0, *ends], ends, strict=False)]
        if word and "".join(morphemes) == unicodedata.normalize("NFC", word):
            found["".join(morphemes)] = tuple(morphemes)
        if len(found) == most:
            break
    return {word: found[word] for word in sorted(found)}


def _hash(stem: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{stem}".encode(), digest_size=8).digest(), "big")


def _is_word(word: str) -> bool:
    return all(unicodedata.category(c)[0] in "LM" for c in word) and not (word.isupper() and len(word) > 1)
