"""Which pictures a comparison gives: one for each part that was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from headwater_tokenizer.compare import pictures
from headwater_tokenizer.compare.columns import count, fixed, flops, measured, percent
from headwater_tokenizer.compare.pictures import Item

WIDE, FULL, NARROW = 528, 1080, 336  # CSS pixels: half and whole width of a desktop window's page, and a phone's
Tokenizers = Mapping[str, dict]
Numbers = Mapping[str, Mapping[str, float]]
"""Tokenizer -> what it was measured on -> figure; empty where it was not."""


@dataclass(frozen=True)
class Figure:
    """A picture that is drawn once for a wide window and once for a narrow one."""

    title: str
    caption: str
    draw: Callable[[int], Markup]
    full: bool = False
    """Whether it takes the page's whole width."""

    @property
    def wide(self) -> Markup:
        return self.draw(FULL if self.full else WIDE)

    @property
    def narrow(self) -> Markup:
        return self.draw(NARROW)


def figures(tokenizers: Tokenizers) -> list[Figure]:
    """The pictures, from `tokenizers` of comparison.json; what nobody measured is left out."""
    lossless = {name: t for name, t in tokenizers.items() if t["lossless"]}
    return [
        _density(tokenizers),
        *_scatter(lossless, "vocabulary", lambda t: t["vocabulary"], count, log_x=True),
        *_scatter(lossless, "embedding's share of the model", _share, percent),
        *_judge(tokenizers),
        *_languages(tokenizers),
        *_digits(tokenizers),
        *_heat(_part(tokenizers, "code", "indentation"), "Tokens an indentation, by its blanks",
               "What the beginning of a line of code costs.", said=lambda n: f"{n:.3g}"),
        *_heat(_each(tokenizers, "morphemes", "f1"), "Morpheme F1 by language",
               "Do tokens end inside words where morphemes do?"),
        *_sources(tokenizers),
    ]  # fmt: skip


def _density(tokenizers: Tokenizers) -> Figure:
    items = [_item(name, t, t["heldout"]["bytes_per_token"]) for name, t in tokenizers.items()]
    items.sort(key=lambda item: (-item.value, item.name))
    draw = partial(pictures.bars, title="Bytes a token by tokenizer", items=items, said=fixed)
    return Figure("Bytes a token", "Held-out text; longer is denser. References in the second colour.", draw)


def _item(name: str, t: dict, value: float, **more: Any) -> Item:
    return Item(name if t["lossless"] else f"{name} (lossy)", value, t["stage"] == "adopt", **more)


def _share(tokenizer: dict) -> float | None:
    return (tokenizer.get("embedding") or {}).get("share_of_model")


def _scatter(
    tokenizers: Tokenizers, what: str, read: Callable[[dict], float | None], said: Callable[[float], str],
    log_x: bool = False,
) -> list[Figure]:  # fmt: skip
    items = [_item(name, tokenizers[name], tokenizers[name]["heldout"]["bytes_per_token"], x=x)
             for name, x in measured(tokenizers, read).items()]  # fmt: skip
    title = f"Bytes a token against {what}"
    draw = partial(pictures.scatter, title=title, items=items, x_label=what, y_label="bytes a token", said_x=said,
                   log_x=log_x)  # fmt: skip
    caption = "What density costs: further left is cheaper, higher is denser. Lossless tokenizers."
    return [Figure(title, caption, draw)] if items else []


def _judge(tokenizers: Tokenizers) -> list[Figure]:
    judged = {name: t["judge"] for name, t in tokenizers.items() if t.get("judge")}
    if not judged:
        return []
    items = [_item(name, tokenizers[name], j["bits_per_byte"], low=j["low"], high=j["high"])
             for name, j in judged.items()]  # fmt: skip
    items.sort(key=lambda item: (item.value, item.name))
    spent = [j["flops"] for j in judged.values()]
    each = " to ".join(dict.fromkeys([flops(min(spent)), flops(max(spent))]))
    seeds = any(item.low is not None for item in items)
    caption = f"Held-out text, fewer is better; {each} of training each" + (
        "; the line goes from the lowest to the highest seed." if seeds else "."
    )
    title = "Bits a byte of small models of equal compute"
    draw = partial(pictures.intervals, title=title, items=items, x_label="bits a byte", said=lambda v: f"{v:.3f}")
    return [Figure(title, caption, draw)]


def _languages(tokenizers: Tokenizers) -> list[Figure]:
    """The premium where there are parallel documents; else bytes a token where there are several languages."""
    premium = _each(tokenizers, "parity", "premium")
    if any(premium.values()):
        base = next(
            (lang for row in premium.values() for lang, value in row.items() if value == 1), "the base language"
        )
        caption = f"The same documents in each language: how many times the tokens that they take in {base}. "
        return _heat(premium, f"Tokens by language, {base} = 1", caption + "Petrov et al. 2023, arXiv 2305.15425.")
    density = _each(tokenizers, "by_language", "bytes_per_token")
    several = len({language for row in density.values() for language in row}) > 1
    return _heat(density, "Bytes a token by language", "Held-out text in each language.") if several else []


def _digits(tokenizers: Tokenizers) -> list[Figure]:
    right = [name for name, aligned in _part(tokenizers, "digits", "aligned_from_right").items() if aligned]
    caption = (
        "Mean over numbers of so many digits. In groups of one size from the right, as thousands are: "
        f"{', '.join(right) or 'none'} (Singh and Strouse 2024, arXiv 2402.14903)."
    )
    return _heat(_part(tokenizers, "digits", "tokens_per_number"), "Tokens a number, by its digits", caption)


def _sources(tokenizers: Tokenizers) -> list[Figure]:
    density = _each(tokenizers, "by_source", "bytes_per_token")
    several = len({source for row in density.values() for source in row}) > 1
    title, caption = "Bytes a token by source", "Held-out text of each source."
    return _heat(density, title, caption, turned=True) if several else []


def _part(tokenizers: Tokenizers, part: str, key: str) -> dict:
    return {name: (t.get(part) or {}).get(key) or {} for name, t in tokenizers.items()}


def _each(tokenizers: Tokenizers, part: str, key: str) -> Numbers:
    return {
        name: {of or "not stated": figures[key] for of, figures in (t.get(part) or {}).items()}
        for name, t in tokenizers.items()
    }


def _heat(
    values: Numbers, title: str, caption: str, turned: bool = False, said: Callable[[float], str] = fixed
) -> list[Figure]:
    """Tokenizers down and what they were measured on across; turned: the other way round."""
    names = [name for name, row in values.items() if row]
    if not names:
        return []
    keys = sorted(
        {key for row in values.values() for key in row}, key=lambda key: key.zfill(9) if key.isdigit() else key
    )
    across = [[values[name].get(key) for key in keys] for name in names]
    rows, columns = (keys, names) if turned else (names, keys)
    cells = [list(column) for column in zip(*across, strict=True)] if turned else across
    draw = partial(pictures.heat, title=title, rows=rows, columns=columns, values=cells, said=said)
    return [Figure(title, caption, draw, full=len(columns) > 9)]


CHANGES = {
    "dropped": "a letter dropped", "doubled": "a letter doubled", "swapped": "two letters swapped",
    "capitalised": "Capitalised", "capitals": "IN CAPITALS", "no_blank": "no blank before",
}  # fmt: skip
"""Of spelling.py, as the picture names them."""


def kept(probed: Tokenizers) -> Figure:
    """What is left of a word's tokens after a change, from each tokenizer's `spelling`."""
    columns = [key for key in CHANGES if any(s["kept"][key] is not None for s in probed.values())]
    cells = [[s["kept"][key] for key in columns] for s in probed.values()]
    title = "Tokens that are still there after a change"
    draw = partial(pictures.heat, title=title, rows=list(probed), columns=[CHANGES[key] for key in columns],
                   values=cells, said=lambda share: f"{100 * share:.0f}%")  # fmt: skip
    caption = "Share of a word's tokens that the changed word has, too, in order; mean over words. What is low makes a "
    return Figure(title, caption + "slip of the pen another word to the model.", draw, full=True)
