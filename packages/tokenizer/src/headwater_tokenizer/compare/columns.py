"""The measures of a comparison as the page shows them: name, format, which way is better, definition and source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean


def fixed(value: float) -> str:
    return f"{value:,.2f}"


def percent(value: float) -> str:
    """0.1234 -> 12.3%; what is little but not nothing -> <0.1%."""
    return "<0.1%" if 0 < value < 0.0005 else f"{100 * value:.1f}%"


def count(value: float) -> str:
    return f"{value:,.0f}"


def flops(value: float) -> str:
    """1.2e13 -> 12 TFLOP."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}FLOP"
    return f"{value:,.0f} FLOP"


@dataclass(frozen=True)
class Column:
    """One measure: a column of the table, and its note."""

    name: str
    read: Callable[[dict], float | None]
    """From a tokenizer's figures; None where it was not measured."""
    said: Callable[[float], str]
    better: int
    """1: more is better; -1: less is; 0: neither."""
    note: str
    source: str = ""
    lossless_only: bool = False
    """Whether leaving text out would improve it."""


def measured(tokenizers: Mapping[str, dict], read: Callable[[dict], float | None]) -> dict[str, float]:
    """What was measured, by tokenizer."""
    found = {name: read(t) for name, t in tokenizers.items()}
    return {name: value for name, value in found.items() if value is not None}


def _heldout(key: str) -> Callable[[dict], float | None]:
    return lambda t: t["heldout"].get(key)


def _part(part: str, key: str) -> Callable[[dict], float | None]:
    return lambda t: (t.get(part) or {}).get(key)


def _premium(t: dict) -> float | None:
    return max((e["premium"] for e in (t.get("parity") or {}).values()), default=None)


def _f1(t: dict) -> float | None:
    found = [e["f1"] for e in (t.get("morphemes") or {}).values()]
    return fmean(found) if found else None


COLUMNS = (
    Column("vocabulary", lambda t: t["vocabulary"], count, 0,
            "entries in all, special and reserved ones included"),
    Column("bits a byte", _part("judge", "bits_per_byte"), lambda v: f"{v:.3f}", -1,
            "loss of small models trained with equal compute, in bits for each byte of held-out text",
            lossless_only=True),
    Column("bytes a token", _heldout("bytes_per_token"), fixed, 1,
            "UTF-8 bytes of held-out text a token; its inverse is what a text costs", lossless_only=True),
    Column("tokens a word", _heldout("tokens_per_word"), fixed, -1,
            "fertility: tokens for each run without white space",
            "Rust et al. 2021, arXiv 2012.15613, section 3", lossless_only=True),
    Column("unknown", _heldout("unknown_share"), percent, -1,
            "share of tokens that are the unknown token"),
    Column("single bytes", _heldout("byte_share"), percent, -1,
            "share of tokens that are a fallback byte, or one of the bytes of a character beyond ASCII",
            lossless_only=True),
    Column("words in pieces", _heldout("continued_words_share"), percent, -1,
            "share of words cut into two tokens or more",
            "Rust et al. 2021, arXiv 2012.15613, section 3", lossless_only=True),
    Column("words in letters", _heldout("single_character_words_share"), percent, -1,
            "share of words of two characters or more that are cut into single characters or bytes",
            lossless_only=True),
    Column("vocabulary used", _heldout("vocabulary_used_share"), percent, 1,
            "share of learned entries that occur in the held-out text"),
    Column("Rényi efficiency", _heldout("renyi_efficiency"), lambda v: f"{v:.3f}", 1,
            "Rényi entropy of order 2.5 of the tokens' frequencies over that of equal frequencies",
            "Zouhar et al. 2023, arXiv 2306.16842", lossless_only=True),
    Column("highest premium", _premium, fixed, -1,
            "tokens of the same documents in the language that takes most over those in the base language",
            "Petrov et al. 2023, arXiv 2305.15425", lossless_only=True),
    Column("code, bytes a token", _part("code", "bytes_per_token"), fixed, 1,
            "bytes a token on source code alone", lossless_only=True),
    Column("morpheme F1", _f1, fixed, 1,
            "do tokens end inside words where morphemes do? harmonic mean of precision and recall, words of one token "
            "set aside; mean over languages", "as MorphScore: Arnett et al. 2025, arXiv 2507.06378"),
    Column("embedding", _part("embedding", "share_of_model"), percent, -1,
            "share of the planned model's parameters that lie in its embedding, input and output"),
    Column("letters hidden", _part("spelling", "hidden_share"), percent, -1,
            "share of letters of the probe words that stand beside another in one token, but for one a token",
            "compare Itzhak and Levy 2022, arXiv 2108.11193; Kaushal and Mahowald 2022, arXiv 2206.02608"),
    Column("unreachable", _part("audit", "unreachable"), count, -1,
            "learned entries whose own text gives other tokens, alone and after other characters",
            "Land and Bartolo 2024, arXiv 2405.05417"),
    Column("under-trained", _part("audit", "under_trained"), count, -1,
            "learned entries that occur too seldom in a sample of the training text to be learned well",
            "after Land and Bartolo 2024, arXiv 2405.05417"),
)  # fmt: skip
"""In the order of the table's columns; one that nobody measured is left out."""
