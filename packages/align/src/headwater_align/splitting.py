"""Which side of a split a record is on: training or held out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .conversation import BadRow, is_heldout, prompt_key

_TRAIN = ("train",)
_HELD_OUT = ("test", "valid", "val", "dev", "eval", "heldout", "held_out", "held-out")


def side_of(name: Any) -> str | None:
    """What a row's own `split` means: "train" or "heldout", by how the word begins (`valid1`, `test_prefs`).

    Raises:
        BadRow: a word that says neither: such a row is neither trained on nor measured with.
    """
    if name is None or name == "":
        return None
    word = name.casefold() if isinstance(name, str) else ""
    if word.startswith(_TRAIN):
        return "train"
    if word.startswith(_HELD_OUT):
        return "heldout"
    raise BadRow("unknown split")


def reserved_prompts(records: Iterable[dict]) -> set[str]:
    """The prompts (conversation.prompt_key) that a record's own `split` holds out."""
    return {_key(record) for record in records if record.get("split") == "heldout"}


def split_by_prompt(records: Iterable[dict], fraction: float, reserved: Collection[str] = ()) -> dict[str, list[dict]]:
    """{"train", "heldout"}, in order of id, each record with its side as `split`; an id is there once.

    Records that ask the same are on the same side. A prompt is held out where a row of it says so by its own `split`,
    where it is among the `reserved` ones, or where its hash falls into the fraction: so a row that its source calls
    test is never trained on, while one that it calls train may still be held out, since the hash is what keeps one
    prompt on one side across artefacts.
    """
    records = list(records)
    reserved = reserved_prompts(records).union(reserved)
    split: dict[str, dict[str, dict]] = {"train": {}, "heldout": {}}
    for record in records:
        key = _key(record)
        side = "heldout" if key in reserved or is_heldout(key, fraction) else "train"
        split[side].setdefault(record["id"], with_split(record, side))
    return {side: [of[name] for name in sorted(of)] for side, of in split.items()}


def with_split(record: dict, side: str) -> dict:
    """The record with its side under `split`, behind `licence`."""
    first = {key: record[key] for key in ("id", "source", "licence")}
    return {**first, "split": side, **{key: value for key, value in record.items() if key not in (*first, "split")}}


def _key(record: dict) -> str:
    return prompt_key(record.get("messages") or record["prompt"])
