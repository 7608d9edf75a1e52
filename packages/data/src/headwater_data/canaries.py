"""Canaries: made-up secrets in the training text, so that a model's recall of them measures what it memorises.

Carlini et al. 2019, "The Secret Sharer" (arXiv:1802.08232), section 4.1: a fixed form, a secret drawn uniformly from
a space of known size. Here the space is all numbers of so many digits, and each canary has a name of its own before its
secret, so that no canary competes with another one's number. A canary is a document of its own. Those of 0 repeats are
never planted: what a model makes of them is chance.
"""

from __future__ import annotations

import hashlib
import json

import polars as pl

from .config.mix import CanariesConfig
from .documents import COLUMNS

SOURCE = "canaries"
FILE = "canaries.jsonl"


def make(config: CanariesConfig) -> list[dict]:
    """The canaries, by number: {id, prefix, secret, suffix, digits, repeats}; the same for the same config."""
    found = []
    for number, repeats in enumerate(r for r in config.repeats for _ in range(config.count)):
        secret = str(_draw(f"secret {config.seed} {number}", 10**config.digits)).zfill(config.digits)
        name, left = "", _draw(f"name {config.seed} {number}", 26**8)
        for _ in range(8):
            left, letter = divmod(left, 26)
            name += chr(ord("a") + letter)
        prefix, suffix = config.format.replace("{name}", name).split("{secret}")
        found.append(
            {"id": f"{SOURCE}/{number:05d}", "prefix": prefix, "secret": secret, "suffix": suffix,
             "digits": config.digits, "repeats": repeats}
        )  # fmt: skip
    return found


def as_documents(canaries: list[dict]) -> pl.DataFrame:
    """Canaries as documents of the source `canaries`, with the columns of the documents artefact."""
    rows = [
        dict.fromkeys(COLUMNS, "") | {
            "id": c["id"], "text": c["prefix"] + c["secret"] + c["suffix"], "source": SOURCE, "category": "misc",
            "lang": "en", "licence": "CC0-1.0", "meta": json.dumps({"canary": True, "repeats": c["repeats"]}),
        }
        for c in canaries
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String))


def lines(canaries: list[dict]) -> str:
    """canaries.jsonl."""
    return "".join(json.dumps(canary, ensure_ascii=False) + "\n" for canary in canaries)


def _draw(salt: str, below: int) -> int:
    """A number in [0, below), uniform but for below / 2**256, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"canary {salt}".encode()).digest(), "big") % below
