"""The leakage of one model as chapters, for a page and its Markdown twin."""

from __future__ import annotations

from typing import Any

from ..benchmark import Scores
from ..report.document import Block, Section, Table, Text
from ..report.units import NONE, count, fixed, percent, short_count, signed

TITLE = "Headwater: what a model gives away"


def subtitle(model: dict[str, Any], scores: Scores) -> str:
    """Which model, in a line."""
    return f"{short_count(model['parameters'])} parameters, context {count(model['context'])}; {len(scores)} scores"


def sections(scores: Scores) -> list[Section]:
    """A chapter each on passages, membership, canaries and private data, as far as they were measured."""
    found = (_passages(scores), _membership(scores), _canaries(scores), _private(scores))
    return [section for section in found if section is not None]


def _passages(scores: Scores) -> Section | None:
    tasks = [key for key in scores if key.startswith("memorised-") and ":" not in key]
    if not tasks:
        return None
    blocks: list[Block] = [
        Text(
            "Passages of the training text, prompted with the k tokens that stand before them and continued greedily. "
            "Exact: every token of the continuation is the text's. Approximate: BLEU above the threshold. Match: "
            "tokens written right before the first wrong one. Times read is in the corpus; the held-out row shows what "
            "the model guesses without having read it. Brackets are 95% intervals."
        )
    ]
    for task in tasks:
        rows = []
        for key in (k for k in scores if k == task or k.startswith((f"{task}:read", f"{task}:heldout"))):
            if key.endswith((" approximate", " match")):
                continue
            part = key.partition(":")[2]
            join = f"{key} " if part else f"{task}:"
            rows.append(
                (part or "all that were read", count(scores[key]["n"]), _share(scores[key]),
                 _share(scores[f"{join}approximate"]), _number(scores[f"{join}match"], 1))
            )  # fmt: skip
        difference = scores.get(f"{task}:train-heldout")
        if difference:
            rows.append(("read less held out", count(difference["n"]), _share(difference), NONE, NONE))
        k = task.removeprefix("memorised-k")
        blocks.append(Table(f"Prompts of {k} tokens", ("passages", "#n", "#exact", "#approximate", "#match"), rows))
    return Section("passages", "Memorised passages", blocks)


def _membership(scores: Scores) -> Section | None:
    names = {"membership": "loss", "membership:min_k": "Min-K%", "membership:zlib": "zlib"}
    rows = [(told, count(scores[key]["n"]), _number(scores[key])) for key, told in names.items() if key in scores]
    if not rows:
        return None
    gap = scores["membership:gap"]
    told = (
        "The chance that a training document looks more like one than a held-out document of the same source and "
        "length does; one half is no leak. Mean log-probability of trained less held-out documents: "
        f"{signed(gap['value'])} [{signed(gap['low'])}, {signed(gap['high'])}] nats a token."
    )
    return Section("membership", "Membership", [Text(told), Table("Attacks", ("attack", "#pairs", "#AUC"), rows)])


def _canaries(scores: Scores) -> Section | None:
    keys = [k for k in scores if k.startswith("exposure:planted") and not k.endswith(("extrapolated", "extracted"))]
    if not keys:
        return None
    rows = [
        (key.removeprefix("exposure:planted "), count(scores[key]["n"]), _number(scores[key], 2),
         _number(scores[f"{key} extrapolated"], 2), _share(scores[f"{key} extracted"]))
        for key in keys
    ]  # fmt: skip
    told = (
        "Made-up secrets that stand in the training text so often. Exposure is in bits: how far the secret stands out "
        "among those that could have been there; a secret that was never read has 1.44 on average. By rank it can't "
        "exceed log2 of the candidates that it was ranked among; the extrapolated one can. Recited: greedy decoding "
        "after the words before it writes it."
    )
    columns = ("#times planted", "#canaries", "#exposure", "#extrapolated", "#recited")
    return Section("canaries", "Canaries", [Text(told), Table("Exposure of planted secrets", columns, rows)])


def _private(scores: Scores) -> Section | None:
    keys = [key for key in scores if key == "private" or key.startswith("private:")]
    if not keys:
        return None
    names = {"private": "any kind", "private:in training": "distinct values that stand in the training text"}
    rows = [(names.get(k, k.removeprefix("private:").replace("_", " ")), count(scores[k]["n"]), _share(scores[k]))
            for k in keys]  # fmt: skip
    told = (
        "Sampled texts that hold what the corpus stage's detectors call private, by kind; and of all distinct values "
        "in them and in the continuations above, the share that the training text holds word for word. The values "
        "themselves are told nowhere."
    )
    return Section("private", "Private data", [Text(told), Table("Share of texts", ("what", "#n", "#share"), rows)])


def _share(row: dict[str, Any]) -> str:
    return f"{percent(row['value'])} [{percent(row['low'])}, {percent(row['high'])}]"


def _number(row: dict[str, Any], digits: int = 3) -> str:
    if row["low"] is None:
        return fixed(row["value"], digits)
    return f"{fixed(row['value'], digits)} [{fixed(row['low'], digits)}, {fixed(row['high'], digits)}]"
