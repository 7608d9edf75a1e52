"""A comparison's figures as flat rows for plots, and as lines of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator


def rows(tokenizers: dict[str, dict]) -> Iterator[dict]:
    """A row a tokenizer: every single figure, names joined by underscores."""
    for name, t in tokenizers.items():
        row = {"tokenizer": name} | {key: t[key] for key in ("algorithm", "stage", "vocabulary", "learned", "lossless")}
        row |= t["heldout"]
        premium = [entry["premium"] for entry in (t["parity"] or {}).values()]
        f1 = [entry["f1"] for entry in (t["morphemes"] or {}).values()]
        yield row | {
            "highest_premium": max(premium, default=None),
            "code_bytes_per_token": t["code"]["bytes_per_token"] if t["code"] else None,
            "morpheme_f1": sum(f1) / len(f1) if f1 else None,
            "embedding_share": t["embedding"]["share_of_model"] if t["embedding"] else None,
            "unreachable": t["audit"]["unreachable"],
            "under_trained": t["audit"]["under_trained"],
            "bits_per_byte": t["judge"]["bits_per_byte"] if t["judge"] else None,
        }


def language_rows(tokenizers: dict[str, dict]) -> Iterator[dict]:
    """A row a tokenizer and language, of held-out text, parallel documents or words with morphemes."""
    for name, t in tokenizers.items():
        parts = [t["by_language"], t["parity"] or {}, t["morphemes"] or {}]
        for language in sorted(set().union(*parts)):
            text, parity, words = (part.get(language, {}) for part in parts)
            yield {
                "tokenizer": name,
                "language": language,
                "bytes": text.get("bytes"),
                "bytes_per_token": text.get("bytes_per_token"),
                "tokens_per_word": text.get("tokens_per_word"),
                "premium": parity.get("premium"),
                "morpheme_precision": words.get("precision"),
                "morpheme_recall": words.get("recall"),
                "morpheme_f1": words.get("f1"),
            }


def as_csv(rows: Iterable[dict]) -> str:
    """Rows of the same keys as CSV, None as nothing."""
    written, lines = io.StringIO(), list(rows)
    writer = csv.DictWriter(written, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return written.getvalue()


def table(tokenizers: dict[str, dict], speeds: dict[str, dict]) -> list[str]:
    """The headline figures and speeds as lines of text."""
    head = ("tokenizer", "ids", "lossless", "B/token", "tok/word", "chars/tok", "unknown", "bytes", "continued",
            "in chars", "used", "Renyi", "unreach.", "under-tr.", "enc MB/s", "dec MB/s")  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    for name, t in tokenizers.items():
        text, speed = t["heldout"], speeds.get(name, {})
        shares = ("unknown_share", "byte_share", "continued_words_share", "single_character_words_share",
                  "vocabulary_used_share")  # fmt: skip
        lines.append(
            (
                name, f"{t['vocabulary']}", "yes" if t["lossless"] else "no", f"{text['bytes_per_token']:.3f}",
                f"{text['tokens_per_word']:.3f}", f"{text['characters_per_token']:.3f}",
                *(f"{text[key]:.2%}" for key in shares), f"{text['renyi_efficiency']:.3f}",
                f"{t['audit']['unreachable']}", f"{t['audit']['under_trained']}",
                *(f"{speed[key]:.1f}" if key in speed else "" for key in ("encode", "decode")),
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in lines]
