"""A comparison of tokenizers as one HTML page: figures, pictures, text coloured by token, spelling, notes.

Every string may come from outside (a web page's text, a tokenizer's entry, a source's name): jinja2 escapes all of it,
pictures escape theirs, control and invisible characters are written by number, and the page's content security policy
allows no request. The page needs no network and no file beside it.
"""

from __future__ import annotations

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from headwater_tokenizer.compare.coloured import HUES, arrays, drawn, seen, visible
from headwater_tokenizer.compare.columns import COLUMNS, Column, measured, percent
from headwater_tokenizer.compare.figures import figures, kept
from headwater_tokenizer.encoder import Encoder


def render(comparison: dict | None, texts: list[dict], encoders: dict[str, Encoder]) -> str:
    """The page, self-contained.

    Args:
        comparison: content of comparison.json; None for a page of coloured text alone.
        texts: `{"id", "source", "lang", "text"}` of the documents shown, valid Unicode; `source`, `lang` may be empty.
            Best a few kB each: the page grows by some 70 bytes a token of the first, and 10 a token of each tokenizer.
        encoders: of the tokenizers that the text can be coloured by; the first two are shown first.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headwater_tokenizer.compare", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else seen(value),
    )
    tools = {"count": lambda n: f"{n:,}", "percent": percent, "visible": visible, "hues": HUES}
    environment.globals.update(tools)
    return environment.get_template("page.html.j2").render(
        **_facts(comparison), coloured=_coloured(texts, encoders) if texts and encoders else None
    )


def _facts(comparison: dict | None) -> dict:
    """What the template shows of a comparison; empty lists for what was not measured."""
    if comparison is None:
        return {"title": "Text by token", "about": [], "table": None, "figures": [], "spelling": None, "audit": [],
                "notes": []}  # fmt: skip
    tokenizers: dict[str, dict] = comparison["tokenizers"]
    shown = [measure for measure in COLUMNS if measured(tokenizers, measure.read)]
    return {
        "title": "Tokenizers compared",
        "about": _about(comparison),
        "table": _table(tokenizers, shown),
        "figures": figures(tokenizers),
        "spelling": _spelling(tokenizers),
        "audit": [(name, t["audit"]) for name, t in tokenizers.items() if t.get("audit")],
        "notes": shown,
    }


def _about(comparison: dict) -> list[str]:
    tokenizers, heldout, sample = comparison["tokenizers"], comparison["heldout"], comparison["sample"]
    adopted = sum(t["stage"] == "adopt" for t in tokenizers.values())
    sources, languages = (
        len({name for t in tokenizers.values() for name in t.get(key) or {}}) for key in ("by_source", "by_language")
    )
    places = [_plural(n, word) for n, word in ((sources, "source"), (languages, "language")) if n]
    return [
        f"{_plural(len(tokenizers) - adopted, 'trained tokenizer')}"
        + (f", beside {_plural(adopted, 'adopted one')} for reference." if adopted else "."),
        f"All encode the same {_plural(heldout['documents'], 'held-out document')}: {_mb(heldout)}, "
        f"{_plural(heldout['words'], 'word')}" + (", from " + " in ".join(places) if places else "") + "; rare entries "
        f"are counted in {_plural(sample['documents'], 'training document')} ({_mb(sample)}).",
        "The best figure of each column among the trained ones is marked; one that does not give the text back (lossy) "
        "can't be best where leaving text out would help.",
    ]  # fmt: skip


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _mb(counted: dict) -> str:
    return f"{counted['bytes'] / 1e6:,.1f}\N{NO-BREAK SPACE}MB"


def _table(tokenizers: dict[str, dict], shown: list[Column]) -> dict:
    """The headline table: its measures, and a group of rows each for what was trained and what was adopted."""
    best = {measure.name: _best(tokenizers, measure) for measure in shown}
    groups = []
    for stage, label in (("train", "trained"), ("adopt", "adopted, for reference")):
        rows = [
            {
                "name": name,
                "algorithm": t["algorithm"],
                "lossy": not t["lossless"],
                "cells": [
                    {"value": value, "text": measure.said(value) if value is not None else "\N{EN DASH}",
                     "best": name in best[measure.name]}
                    for measure in shown for value in [measure.read(t)]
                ],
            }
            for name, t in tokenizers.items() if t["stage"] == stage
        ]  # fmt: skip
        if rows:
            groups.append({"label": label, "rows": rows})
    return {"measures": shown, "groups": groups}


def _best(tokenizers: dict[str, dict], measure: Column) -> set[str]:
    """Names of the trained tokenizers with the best figure as it is shown; none where it is that of most of them."""
    fair = {name: t for name, t in tokenizers.items()
            if t["stage"] == "train" and (t["lossless"] or not measure.lossless_only)}  # fmt: skip
    values = measured(fair, measure.read)
    if not measure.better or not values:
        return set()
    top = max(values.values(), key=lambda value: value * measure.better)
    best = {name for name, value in values.items() if measure.said(value) == measure.said(top)}
    return best if 2 * len(best) <= len(values) else set()


def _spelling(tokenizers: dict[str, dict]) -> dict | None:
    probed = {name: t["spelling"] for name, t in tokenizers.items() if t.get("spelling")}
    if not probed:
        return None
    words = [example["word"] for example in next(iter(probed.values()))["examples"]]
    cut = {name: {e["word"]: e for e in s["examples"]} for name, s in probed.items()}
    asked = next(iter(cut.values()))[words[0]]
    can = [name for name, rows in cut.items() if rows[words[0]]["asked_countable"]]
    return {"by_name": probed, "words": words, "cut": cut, "figure": kept(probed), "asked": asked, "can": can}


def _coloured(texts: list[dict], encoders: dict[str, Encoder]) -> dict:
    data, cuts = arrays(texts, encoders)
    panes = []
    for side, number in (("left", 0), ("right", min(1, len(encoders) - 1))):
        html, told = drawn(cuts[0][number], data["unknown"][number]), data["cuts"][0][number]["told"]
        panes.append({"side": side, "number": number, "html": html, "told": told})
    return {
        "names": data["names"],
        "texts": [text["name"] for text in data["texts"]],
        "panes": panes,
        "json": htmlsafe_json_dumps(data, separators=(",", ":"), ensure_ascii=False),
    }
