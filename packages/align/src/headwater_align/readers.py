"""From the files of a sources artefact to rows, and from a row in a public format to messages.

Each row says by its own keys which format it is in; nothing is guessed from the first row.

    Alpaca       {"instruction", "input"?, "output", "system"?}
    OpenAI chat  {"messages": [{"role", "content"}]}
    ShareGPT     {"conversations": [{"from", "value"}], "system"?}
    prompt       {"prompt", "completion"} and FLAN's {"inputs", "targets"}
    ChatterBot   YAML {"conversations": [[turn, turn, ...], ...]}
    docstrings   {"name", "signature", "doc"}: question and answer by the phrasings below
    preferences  any of the prompts above beside {"chosen", "rejected"}
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ._contracts.errors import UserError
from .conversation import BadRow, Message, check

PAYLOAD_SUFFIXES = (".jsonl", ".json", ".yml", ".yaml", ".parquet")

SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True)
class Source:
    """One folder of a sources artefact."""

    name: str
    role: str
    licence: str
    folder: Path


@dataclass(frozen=True)
class Row:
    """One record of a source's payload, still in its own format."""

    source: Source
    number: int
    """Position in the source, from 0, over its files in order of name."""
    value: Any


def sources_with_role(artefact: Path, role: str, names: tuple[str, ...] = ()) -> list[Source]:
    """The sources of a role, or those named whatever their role, in order of name.

    Raises:
        UserError: a named source is not there, or no source has the role.
    """
    found = []
    for path in sorted(artefact.glob("*/source.json")):
        about = json.loads(path.read_text())
        found.append(Source(about["name"], about["role"], about["licence"], path.parent))
    missing = sorted(set(names) - {s.name for s in found})
    if missing:
        have = ", ".join(s.name for s in found)
        raise UserError(f"no source {missing[0]} in {artefact}; it holds {have}: correct `sources` or collect it")
    chosen = [s for s in found if (s.name in names if names else s.role == role)]
    if not chosen:
        raise UserError(f"{artefact} holds no source of role {role}; collect one, or name sources with `sources`")
    return chosen


def rows(source: Source) -> Iterator[Row]:
    """Every record of a source; a line or file that cannot be parsed comes as a BadRow in `value`."""
    files = [p for p in sorted(source.folder.rglob("*")) if p.suffix in PAYLOAD_SUFFIXES and p.name != "source.json"]
    if not files:
        raise UserError(f"source {source.name} holds no file of {', '.join(PAYLOAD_SUFFIXES)}; mend its `include`")
    number = 0
    for path in files:
        for value in _values(path):
            yield Row(source, number, value)
            number += 1


def _values(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    elif path.suffix == ".jsonl":
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip():
                    yield from _unpack(_parsed(json.loads, line))
    elif path.suffix == ".json":
        value = _parsed(json.loads, path.read_text("utf-8", errors="replace"))
        yield from value if isinstance(value, list) else [value]
    else:
        yield from _unpack({"text": path.read_text("utf-8", errors="replace"), "path": path.name})


def _unpack(value: Any) -> Iterator[Any]:
    """A line of a packed tree is {"path", "text"}: a YAML member holds a ChatterBot corpus of many conversations."""
    if not (
        isinstance(value, dict) and {"path", "text"} <= set(value) and str(value["path"]).endswith((".yml", ".yaml"))
    ):
        yield value
        return
    loaded = _parsed(lambda text: yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), value["text"])
    talks = loaded.get("conversations") if isinstance(loaded, dict) else None
    if not isinstance(talks, list):
        yield loaded if isinstance(loaded, BadRow) else BadRow("a YAML file without a list `conversations`")
        return
    for talk in talks:
        yield {"turns": talk}


def _parsed(parser: Any, text: str) -> Any:
    try:
        return parser(text)
    except (ValueError, yaml.YAMLError):
        return BadRow("not parseable")


def to_conversations(value: Any, phrasings: int = 1) -> list[list[Message]]:
    """The conversations of one row: one, or `phrasings` for a docstring.

    Raises:
        BadRow: with the reason.
    """
    if isinstance(value, BadRow):
        raise value
    if not isinstance(value, dict):
        raise BadRow("not a mapping of keys")
    if {"name", "doc"} <= set(value):
        return docstring_conversations(value, phrasings)
    if "turns" in value:
        return [check(_alternating(value["turns"]))]
    prompt = _prompt(value)
    answer = next((value[key] for key in ("output", "completion", "targets") if key in value), None)
    if answer is not None:
        prompt = [*prompt, {"role": "assistant", "content": answer}]
    return [check(prompt)]


def to_preference(value: Any) -> tuple[list[Message], list[Message], list[Message]]:
    """(prompt, chosen, rejected) of one row; the two answers are lists of one assistant message.

    Raises:
        BadRow: with the reason.
    """
    if isinstance(value, BadRow):
        raise value
    if not isinstance(value, dict) or not {"chosen", "rejected"} <= set(value):
        raise BadRow("no chosen and rejected")
    prompt = check(_prompt(value), last="user")
    chosen, rejected = (_answer(value[side]) for side in ("chosen", "rejected"))
    chosen, rejected = check(prompt + chosen)[-1:], check(prompt + rejected)[-1:]
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal")
    return prompt, chosen, rejected


def _prompt(value: dict) -> list[Message]:
    """Every message of a row's conversation or prompt."""
    system = [{"role": "system", "content": value["system"]}] if value.get("system") else []
    if "messages" in value:
        return value["messages"]
    if "conversations" in value:
        if not isinstance(value["conversations"], list):
            raise BadRow("conversations is not a list")
        return system + [_from_sharegpt(turn) for turn in value["conversations"]]
    if "instruction" in value:
        asked, given = value["instruction"], value.get("input")
        both = f"{asked}\n\n{given}" if isinstance(given, str) and given.strip() else asked
        return [*system, {"role": "user", "content": both}]
    for key in ("prompt", "inputs"):
        if key in value:
            text = value[key]
            return text if isinstance(text, list) else [*system, {"role": "user", "content": text}]
    raise BadRow("unknown format")


def _answer(value: Any) -> list[Message]:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = _from_sharegpt(value)["content"] if "from" in value else value.get("content")
    return [{"role": "assistant", "content": value}]


def _from_sharegpt(turn: Any) -> Message:
    if not isinstance(turn, dict) or turn.get("from") not in SHAREGPT_ROLES:
        raise BadRow("unknown role")
    return {"role": SHAREGPT_ROLES[turn["from"]], "content": turn.get("value", "")}


def _alternating(turns: Any) -> list[Message]:
    """Bare turns, the user's first; a last word of the user that nobody answers is left out."""
    if not isinstance(turns, list) or len(turns) < 2:
        raise BadRow("fewer than two turns")
    whole = turns[: len(turns) // 2 * 2]
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(whole)]


# Real questions that a docstring answers. (question, which part of the docstring answers it)
PHRASINGS = (
    ("What does {name} do?", "sentence"),
    ("Explain {name} in Python.", "paragraph"),
    ("Describe {name} in one sentence.", "sentence"),
    ("How do I call {name}?", "signature"),
    ("Tell me about {name}.", "paragraph"),
    ("What is {name} for?", "sentence"),
)


def docstring_conversations(record: dict, phrasings: int) -> list[list[Message]]:
    """Question and answer made from one docstring, in `phrasings` ways that its name picks.

    Raises:
        BadRow: no name or no docstring, or none of the phrasings fits.
    """
    name, doc = record["name"], record["doc"]
    if not isinstance(name, str) or not isinstance(doc, str) or not name.strip() or not doc.strip():
        raise BadRow("no name or no docstring")
    doc = inspect.cleandoc(doc)
    paragraph = " ".join(doc.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph)[0]
    answers = {
        "paragraph": paragraph,
        "sentence": sentence,
        "signature": _call(name, record.get("signature"), sentence),
    }
    start = sum(name.encode()) % len(PHRASINGS)
    made: list[list[Message]] = []
    for question, part in PHRASINGS[start:] + PHRASINGS[:start]:
        if len(made) < phrasings and answers[part]:
            asked = {"role": "user", "content": question.format(name=name)}
            made.append(check([asked, {"role": "assistant", "content": answers[part]}]))
    return made


def _call(name: str, signature: Any, sentence: str) -> str:
    """How a function is called, and to what end; empty where the signature is not known."""
    if not isinstance(signature, str) or not signature.startswith("("):
        return ""
    return f"{name.rpartition('.')[2]}{signature}: {sentence}"
