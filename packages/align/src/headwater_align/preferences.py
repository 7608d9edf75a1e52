"""Stage `preferences`: comparisons in any public format and people's labels -> rankings, split by prompt.

Beside people's comparisons it makes, where asked to, *mismatched* pairs from demonstrations: the right answer against
the answer to another prompt of the same source and side of the split. They teach that an answer has to fit its
question, are labelled `SOURCE/mismatched`, and are never mixed up with people's judgement.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import PreferencesConfig
from .conversation import BadRow
from .instructions import count, demonstrations, reject, write_split
from .preference import comparison, pairs_of, record
from .readers import Row, Source, read, rows, sources_with_role, values
from .splitting import reserved_prompts, split_by_prompt

LABELS = "labels.jsonl"


def run(run: Run) -> None:
    """Write train.jsonl, heldout.jsonl, rejects.jsonl and metrics.json."""
    config: PreferencesConfig = run.config
    made: dict[str, dict] = {}
    rejects: list[dict] = []
    for source, given in _given(run):
        before = len(made)
        refused = comparisons(source, given, made)
        rejects += refused
        run.log(f"{source.name}: {len(made) - before} comparisons, {len(refused)} rejects")
    shown = _shown(run) if config.mismatched_per_prompt else {}
    reserved = reserved_prompts(chain(made.values(), *shown.values()))
    split = split_by_prompt(made.values(), config.heldout_fraction, reserved)
    for name, of_source in shown.items():
        for side, records in split_by_prompt(of_source, config.heldout_fraction, reserved).items():
            pairs = mismatched(records, config.mismatched_per_prompt, config.mismatched_candidates)
            split[side] = sorted(split[side] + pairs, key=lambda r: r["id"])
            run.log(f"{name}: {len(pairs)} mismatched pairs ({side})")
    if not split["train"] or not split["heldout"]:
        raise UserError("no comparison on one side of the split; add sources or set mismatched_per_prompt above 0")
    write_split(run.out, split, rejects)
    run.write_metrics(count(split, rejects) | figures(split))


def _given(run: Run) -> Iterator[tuple[Source, Iterable[Row]]]:
    """Every source of comparisons with its rows, then every labels artefact as one, in order of name."""
    labels = sorted(name for name in run.inputs if name != "sources")
    try:
        sources = sources_with_role(run.inputs["sources"], "preferences", run.config.sources)
    except UserError:
        if run.config.sources or not (run.config.mismatched_per_prompt or labels):
            raise
        sources = []
    for source in sources:
        yield source, rows(source)
    for name in labels:
        of_people = Source(name, "labels", "unknown", run.inputs[name])
        yield of_people, (Row(of_people, i, v) for i, v in enumerate(values(of_people.folder / LABELS)))


def _shown(run: Run) -> dict[str, list[dict]]:
    """Source -> its demonstrations. Their rejects are counted by the stage instructions."""
    config: PreferencesConfig = run.config
    return {
        source.name: demonstrations(source, config.phrasings, config.max_rows.get(source.name))[0]
        for source in sources_with_role(run.inputs["sources"], "instructions", config.mismatched_sources)
    }


def comparisons(source: Source, given: Iterable[Row], made: dict[str, dict]) -> list[dict]:
    """Add the comparisons of a source's rows to `made`, by id, and return the rejects.

    Two equal judgements of two labellers are two votes and both stay; a record equal in all its content, from this
    source or one before, is a reject. Labels keep the source and licence that they say themselves.
    """
    refused = []
    for row in given:
        try:
            _, found = read(row.value, "comparisons")
        except BadRow as e:
            refused.append(reject(row, e))
            continue
        for part in found:
            if isinstance(part, BadRow):
                refused.append(reject(row, part))
                continue
            told = part if source.role == "labels" else {}
            line = record(part, told.get("source", source.name), told.get("licence", source.licence))
            if line["id"] in made:
                if line["split"] == "heldout":  # one of two equal rows says test: neither is trained on
                    made[line["id"]]["split"] = "heldout"
                refused.append(reject(row, BadRow("duplicate")))
            else:
                made[line["id"]] = line
    return refused


def mismatched(records: list[dict], per_prompt: int, candidates: int) -> list[dict]:
    """Pairs of each demonstration's last answer against another's, of `candidates` drawn the nearest in length.

    A coin decides whether the wrong answer shall be the longer or the shorter one, so that length alone says nothing
    (without it "longer wins" is right in 58% of the pairs of 1,710 real demonstrations). The draw depends on the
    record's id alone. Records whose every candidate says the same as the right answer give no pair.
    """
    answers = [r["messages"][-1]["content"] for r in records]
    made = []
    for shown, right in zip(records, answers, strict=True):
        draw = random.Random(shown["id"])
        for _ in range(per_prompt):
            drawn = [a for a in draw.choices(answers, k=candidates) if a != right]
            if not drawn:
                continue
            sign = draw.choice((-1, 1))
            wrong = min(drawn, key=lambda a: (sign * (len(a) - len(right)) < 0, abs(len(a) - len(right)), a))
            content = comparison(shown["messages"][:-1], [right, wrong], [1, 2]) | {"split": shown["split"]}
            made.append(record(content, f"{shown['source']}/mismatched", shown["licence"]))
    return list({r["id"]: r for r in made}.values())


def figures(split: dict[str, list[dict]]) -> dict:
    """What a comparison is worth: pairs that differ in rank, by side; answers a comparison; labellers."""
    everything = [line for side in split.values() for line in side]
    labellers = {line["labeller"] for line in everything} - {None}  # counted, not named: reports and cards show this
    return {
        "pairs": {side: sum(len(pairs_of(line)) for line in lines) for side, lines in split.items()},
        "by_answers": dict(sorted(Counter(str(len(line["responses"])) for line in everything).items())),
        "with_ties": sum(len(set(line["ranks"])) < len(line["ranks"]) for line in everything),
        "labellers": len(labellers),
    }
