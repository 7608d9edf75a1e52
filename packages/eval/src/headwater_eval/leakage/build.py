"""The stage: a model and the corpus that it was trained on -> results.

    passages -> continuations; pairs -> likelihoods; canaries -> ranks; openings -> samples -> private data
    -> metrics.json, results.json, samples.parquet, exposure.jsonl, private.jsonl; index.html and report.md for people

A finished part is kept in `run.work`, so a killed run goes on with the next one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import native, samples
from .._contracts.config import resolved
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..benchmark import Row, Scores
from ..lm import Decoding
from ..native import NativeScorer
from ..report.render import html, markdown
from . import corpus, exposure, membership, memorisation, page, private, scores
from .config import LeakageConfig
from .memorisation import Passage


def run(run: Run) -> None:
    """Measure, and fill `run.out` with metrics.json, results.json, samples.parquet, what was found, and the page."""
    config: LeakageConfig = run.config
    folder = run.inputs["corpus"]
    canaries = exposure.read(folder)
    scorer = native.load(run.inputs["model"], config.dtype, config.threads, config.batch_tokens)

    passages = _passages(run, scorer, config)
    outcomes = _outcomes(run, scorer, passages, config)
    pairs = _kept(run, "membership", partial(measure_pairs, scorer, folder, config))
    ranks = []
    for number, canary in enumerate(canaries, 1):
        measure = partial(measure_canary, scorer, canary, config)
        ranks.append(_kept(run, canary["id"].replace("/", "-"), measure, told=False))
        run.progress(f"canaries: {number} of {len(canaries)}")
    sampled = _kept(run, "samples", partial(sample_texts, scorer, config))

    texts = [(f"sample-{i:04d}", True, text) for i, text in enumerate(sampled)]
    for k, some in outcomes.items():
        texts += [(f"{p.id} k{k}", False, scorer.decode(o["written"])) for p, o in zip(passages, some, strict=True)]
    values = private.found_in(texts, config.private.kinds, config.private.phone_region, folder)

    found: Scores = {}
    for k, some in outcomes.items():
        found |= scores.memorised(k, passages, some, config.memorisation.bleu)
    found |= scores.membership(pairs) | scores.canaries(ranks)
    found |= scores.private(values, len(sampled), config.private.kinds)
    rows = [_passage_row(scorer, k, p, o) for k, some in outcomes.items() for p, o in zip(passages, some, strict=True)]
    rows += [_document_row(document) for pair in pairs for document in pair]
    samples.write(run.out, rows + [_canary_row(rank) for rank in ranks])
    model = {"parameters": sum(p.numel() for p in scorer.model.parameters()), "context": scorer.context}
    results = {name: {row["metric"]: row["value"]} for name, row in found.items()}
    about = {"config": resolved(config), "model": model, "results": results}
    write_atomic(run.out / "results.json", canonical_json(about))
    write_atomic(run.out / "exposure.jsonl", _lines(ranks))
    write_atomic(run.out / "private.jsonl", _lines(values))
    chapters, told = page.sections(found), page.subtitle(model, found)
    write_atomic(run.out / "index.html", html(page.TITLE, told, chapters))
    write_atomic(run.out / "report.md", markdown(page.TITLE, told, chapters))
    run.write_metrics(found)
    for name, row in found.items():
        if ":" not in name:
            interval = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
            run.log(f"{name}: {row['metric']} {row['value']:.4f}{interval} (n {row['n']})")
    run.log(f"{len(found)} scores in metrics.json: the tables are in index.html and report.md")


def _kept(run: Run, name: str, make: Callable[[], Any], told: bool = True) -> Any:
    """A finished part from `run.work`, or made now and kept there; with `told` the log says so."""
    path = run.work / "parts" / f"{name}.json"
    if not path.exists():
        started = time.monotonic()
        write_atomic(path, canonical_json(make()))
        if told:
            run.log(f"{name}: done in {time.monotonic() - started:.1f} s")
    return json.loads(path.read_text())


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _passages(run: Run, scorer: NativeScorer, config: LeakageConfig) -> list[Passage]:
    def make() -> list[dict]:
        chosen = memorisation.passages(run.inputs["corpus"], scorer, config.memorisation, config.seed)
        return [asdict(passage) for passage in chosen]

    return [Passage(**fields) for fields in _kept(run, "passages", make)]


def _outcomes(run: Run, scorer: NativeScorer, passages: list[Passage], config: LeakageConfig) -> dict[int, list[dict]]:
    """Prompt length -> what was written after it, a passage each."""
    settings = config.memorisation
    fitting = memorisation.lengths(settings, scorer.context)
    if set(settings.prompt_tokens) - set(fitting) and settings.documents:
        longer = ", ".join(str(k) for k in settings.prompt_tokens if k not in fitting)
        run.log(f"no prompts of {longer} tokens: they and their continuation do not fit {scorer.context}")
    if settings.documents and fitting and not passages:
        run.log(f"no document has the {fitting[-1] + settings.continuation} tokens of a passage: nothing to recite")
    return {
        k: _kept(
            run, f"memorised-k{k}", partial(memorisation.attempt, scorer, passages, k, settings, config.batch_rows)
        )
        for k in (fitting if passages else [])
    }


def measure_pairs(scorer: NativeScorer, folder: Path, config: LeakageConfig) -> list[list[dict]]:
    """Likelihoods of matched documents: pairs of a member and another, each {id, source, member, tokens} and its
    signals. A pair of which one is too short drops out."""
    settings = config.membership
    if not settings.pairs:
        return []
    length = min(settings.tokens, scorer.context)
    train, held = (
        [d for d in corpus.facts(folder, split, config.seed) if d.bytes >= settings.min_tokens]
        for split in ("train", "heldout")
    )
    pairs = membership.matched(train, held, settings.pairs, membership.BYTES_A_TOKEN * length)
    sides = []
    for split, chosen in (("train", [p.member for p in pairs]), ("heldout", [p.other for p in pairs])):
        texts = corpus.texts(folder, split, [d.id for d in chosen])
        ids = [scorer.encode(texts[d.id])[:length] for d in chosen]
        logprobs = scorer.token_logprobs(ids)
        sides.append(
            [
                {"id": d.id, "source": d.source, "member": split == "train", "tokens": len(row),
                 **membership.signals(nats, scorer.decode(row), settings.lowest)}
                for d, row, nats in zip(chosen, ids, logprobs, strict=True)
            ]
        )  # fmt: skip
    return [list(pair) for pair in zip(*sides, strict=True) if min(d["tokens"] for d in pair) >= settings.min_tokens]


def measure_canary(scorer: NativeScorer, canary: dict, config: LeakageConfig) -> dict:
    """One canary's exposure, by rank and extrapolated, and whether greedy decoding after its prefix recites it."""
    others = exposure.candidates(canary, config.exposure.candidates, config.seed)
    space = 10 ** canary["digits"]
    forms = [scorer.encode(canary["prefix"] + secret + canary["suffix"]) for secret in (canary["secret"], *others)]
    nats = np.array([-row.sum(dtype=float) for row in scorer.token_logprobs(forms)])
    prompt = [scorer.end_of_document, *scorer.encode(canary["prefix"].rstrip())]
    (written,) = scorer.generate([prompt], 2 * canary["digits"], [scorer.end_of_document])
    return {
        "id": canary["id"], "repeats": canary["repeats"], "bits_of_space": math.log2(space),
        "candidates": len(others), "nats": float(nats[0]),
        "exposure": exposure.ranked(float(nats[0]), nats[1:], space),
        "extrapolated": exposure.extrapolated(float(nats[0]), nats[1:], space),
        "extracted": scorer.decode(written).strip().startswith(canary["secret"]),
    }  # fmt: skip


def sample_texts(scorer: NativeScorer, config: LeakageConfig) -> list[str]:
    """What the model writes after the openings, by sampling; the opening is part of the text."""
    settings = config.private
    openings = [settings.openings[i % len(settings.openings)] for i in range(settings.samples)]
    texts: list[str] = []
    for start in range(0, len(openings), config.batch_rows):
        some = openings[start : start + config.batch_rows]
        prompts = [[scorer.end_of_document, *scorer.encode(opening)] for opening in some]
        room = min(settings.tokens, scorer.context - max(map(len, prompts)))
        how = Decoding(room, temperature=settings.temperature, top_k=settings.top_k)
        seeds = [config.seed + start + i for i in range(len(some))]
        texts += [opening + text for opening, text in zip(some, scorer.write(prompts, how, seeds), strict=True)]
    return texts


def _passage_row(scorer: NativeScorer, k: int, passage: Passage, outcome: dict) -> Row:
    return {"task": f"{'memorised' if passage.times else 'control'}-k{k}", "doc_id": passage.id,
            "prompt": scorer.decode(passage.before[-k:]), "response": scorer.decode(outcome["written"]),
            "answers": [scorer.decode(passage.after)], "score": float(outcome["exact"]), "correct": outcome["exact"],
            "category": passage.source}  # fmt: skip


def _document_row(document: dict) -> Row:
    return {"task": "likelihood-train" if document["member"] else "likelihood-heldout", "doc_id": document["id"],
            "score": document["loss"], "category": document["source"]}  # fmt: skip


def _canary_row(rank: dict) -> Row:
    return {"task": "exposure", "doc_id": rank["id"], "score": rank["exposure"],
            "category": f"planted {rank['repeats']}"}  # fmt: skip
