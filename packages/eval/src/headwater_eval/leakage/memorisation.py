"""Passages of the training text that a model writes on word for word when it is given what stood before them.

Carlini et al. 2022, "Quantifying Memorization Across Neural Language Models" (arXiv:2202.07646), section 3: a string is
extractable with k tokens of context if, given the k tokens that stand before it in the training text, greedy decoding
writes it. Here the string is a passage's last 50 tokens and stays the same for every k. A model of language also
guesses what it never read, so the same is done with held-out documents; what training adds to that is memorised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..documents import seeded_rank
from ..lm import Scorer
from . import corpus
from .config import MemorisationConfig

HELDOUT = "heldout"


@dataclass(frozen=True)
class Passage:
    """A place in a document: tokens to prompt with, and those that follow."""

    id: str
    source: str
    before: list[int]
    """As many as the longest prompt has."""
    after: list[int]
    times: int
    """How often the document stands in the training text, or the words of `after` where that is more; 0: held out."""


def lengths(config: MemorisationConfig, context: int) -> list[int]:
    """The prompt lengths that fit the model's context with their continuation."""
    return [k for k in config.prompt_tokens if k + config.continuation <= context]


def passages(folder: Path, scorer: Scorer, config: MemorisationConfig, seed: int) -> list[Passage]:
    """Training passages, spread over how often they were read, and as many held-out ones as there are, up to that.

    Only documents that are long enough for the longest prompt count, so that every length k is asked of the same ones.
    Held-out passages whose last tokens stand in the training text too (boilerplate) are no control and are left out.
    """
    longest = max(lengths(config, scorer.context), default=0)
    if not longest or not config.documents:
        return []
    train = corpus.facts(folder, "train", seed)
    groups: dict[int, list[corpus.Facts]] = defaultdict(list)
    for document in train:
        groups[group_of(document.repeats)[0]].append(document)
    found = []
    for _, members in sorted(groups.items()):
        found += _cut(folder, "train", members, config.documents, longest, scorer, config, seed)
    held = corpus.facts(folder, HELDOUT, seed)
    found += _cut(folder, HELDOUT, held, len(found), longest, scorer, config, seed)
    words = {p.id: scorer.decode(p.after) for p in found}
    stands = corpus.occurrences(folder, [text for text in words.values() if "\N{REPLACEMENT CHARACTER}" not in text])
    times = {p.id: stands.get(words[p.id], (0, []))[0] for p in found}
    read = [replace(p, times=max(p.times, times[p.id])) for p in found if p.times]
    return read + [p for p in found if not p.times and not times[p.id]]


def _cut(
    folder: Path, split: str, documents: Sequence[corpus.Facts], wanted: int, longest: int, scorer: Scorer,
    config: MemorisationConfig, seed: int,
) -> list[Passage]:  # fmt: skip
    """One passage a document, at a seeded place, of the first `wanted` that are long enough."""
    need = longest + config.continuation
    found: list[Passage] = []
    candidates = [d for d in documents if d.bytes >= need]  # a token is a byte or more
    start, size = 0, wanted
    while start < len(candidates) and len(found) < wanted:
        some = candidates[start : start + size]
        start, size = start + size, 4 * size  # each round is a pass over the split: few rounds, however short most are
        texts = corpus.texts(folder, split, [d.id for d in some])
        for document in some:
            ids = scorer.encode(texts[document.id])
            if len(ids) < need or len(found) >= wanted:
                continue
            place = int(seeded_rank(seed, f"{document.id} passage")[:12], 16) % (len(ids) - need + 1)
            before, after = ids[place : place + longest], ids[place + longest : place + need]
            times = 0 if split == HELDOUT else document.repeats
            found.append(Passage(document.id, document.source, before, after, times))
    return found


def group_of(times: int) -> tuple[int, int]:
    """The range of powers of two that a number lies in: 1, 2 to 3, 4 to 7, ...; (0, 0) for 0."""
    return (0, 0) if times < 1 else (1 << (times.bit_length() - 1), (1 << times.bit_length()) - 1)


def attempt(scorer: Scorer, found: Sequence[Passage], k: int, config: MemorisationConfig, rows: int) -> list[dict]:
    """What the model wrote after the last k tokens before each passage.

    Args:
        rows: passages at a time.

    Returns:
        {written: ids, exact, match: tokens written right before the first wrong one, bleu: 0 to 1} a passage.
    """
    prompts = [p.before[-k:] for p in found]
    written: list[list[int]] = []
    for start in range(0, len(prompts), rows):
        some = prompts[start : start + rows]
        written += scorer.generate(some, config.continuation, [scorer.end_of_document])
    return [{"written": ids, **compared(ids, p.after)} for ids, p in zip(written, found, strict=True)]


def compared(written: Sequence[int], true: Sequence[int]) -> dict[str, Any]:
    """How much of a passage was written: exactly, from its beginning on, and by BLEU over token ids.

    BLEU as in Ippolito et al. 2023, "Preventing Generation of Verbatim Memorization in Language Models Gives a False
    Sense of Privacy" (arXiv:2210.17546), who call a continuation above 0.75 approximately memorised; sacreBLEU's, of up
    to 4-grams.
    """
    both = list(zip(written, true, strict=False))
    match = next((i for i, (a, b) in enumerate(both) if a != b), len(both))
    hypothesis, reference = (" ".join(map(str, ids)) for ids in (written, true))
    bleu = _bleu().sentence_score(hypothesis, [reference]).score / 100
    return {"exact": match == len(true), "match": match, "bleu": min(1.0, round(bleu, 6))}


@cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="none", effective_order=True)
