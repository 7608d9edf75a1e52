"""Stage `preferences`: sources of comparisons -> {prompt, chosen, rejected}, split into train and held-out.

Beside people's comparisons it makes, where asked to, *mismatched* pairs from demonstrations: the right answer against
the answer to another prompt of the same source and side of the split. They teach that an answer has to fit its
question, are labelled `SOURCE/mismatched`, and are never mixed up with people's judgement.
"""

from __future__ import annotations

import random

from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import PreferencesConfig
from .conversation import BadRow, identity
from .instructions import count, demonstrations, reject, split_by_prompt, write_split
from .readers import Source, rows, sources_with_role, to_preference


def run(run: Run) -> None:
    """Write train.jsonl, heldout.jsonl, rejects.jsonl and metrics.json."""
    config: PreferencesConfig = run.config
    made: list[dict] = []
    rejects: list[dict] = []
    for source in _compared(run):
        pairs, refused = comparisons(source)
        made, rejects = made + pairs, rejects + refused
        run.log(f"{source.name}: {len(pairs)} pairs, {len(refused)} rejects")
    split = split_by_prompt(made, config.heldout_fraction)
    if config.mismatched_per_prompt:
        for source in sources_with_role(run.inputs["sources"], "instructions", config.mismatched_sources):
            # Rejects of demonstrations are counted by the stage instructions.
            shown, _ = demonstrations(source, config.phrasings, config.max_rows.get(source.name))
            for side, records in split_by_prompt(shown, config.heldout_fraction).items():
                pairs = mismatched(records, config.mismatched_per_prompt, config.mismatched_candidates)
                split[side] = sorted(split[side] + pairs, key=lambda r: r["id"])
                run.log(f"{source.name}: {len(pairs)} mismatched pairs ({side})")
    if not split["train"] or not split["heldout"]:
        raise UserError("no pair on one side of the split; add sources or set mismatched_per_prompt above 0")
    write_split(run.out, split, rejects)
    run.write_metrics(count(split, rejects))


def _compared(run: Run) -> list[Source]:
    """The sources of comparisons; none is needed where mismatched pairs are made."""
    try:
        return sources_with_role(run.inputs["sources"], "preferences", run.config.sources)
    except UserError:
        if run.config.sources or not run.config.mismatched_per_prompt:
            raise
        return []


def comparisons(source: Source) -> tuple[list[dict], list[dict]]:
    """(records, rejects) of one source: each record {"id", "source", "licence", "prompt", "chosen", "rejected"}."""
    made: dict[str, dict] = {}
    refused = []
    for row in rows(source):
        try:
            pair = to_preference(row.value)
            if identity(*pair) in made:
                raise BadRow("duplicate")
            made[identity(*pair)] = _record(source.name, source.licence, *pair)
        except BadRow as e:
            refused.append(reject(row, e))
    return list(made.values()), refused


def mismatched(records: list[dict], per_prompt: int, candidates: int) -> list[dict]:
    """Pairs of each demonstration's last answer against another's, of `candidates` drawn the nearest in length.

    A coin decides whether the wrong answer shall be the longer or the shorter one, so that length alone says nothing
    (without it "longer wins" is right in 58% of the pairs of 1,710 real demonstrations). The draw depends on the
    record's id alone. Records whose every candidate says the same as the right answer give no pair.
    """
    answers = [r["messages"][-1]["content"] for r in records]
    made = []
    for record, right in zip(records, answers, strict=True):
        draw = random.Random(record["id"])
        for _ in range(per_prompt):
            drawn = [a for a in draw.choices(answers, k=candidates) if a != right]
            if not drawn:
                continue
            sign = draw.choice((-1, 1))
            wrong = min(drawn, key=lambda a: (sign * (len(a) - len(right)) < 0, abs(len(a) - len(right)), a))
            chosen, rejected = ([{"role": "assistant", "content": text}] for text in (right, wrong))
            name = f"{record['source']}/mismatched"
            made.append(_record(name, record["licence"], record["messages"][:-1], chosen, rejected))
    return list({r["id"]: r for r in made}.values())


def _record(source: str, licence: str, prompt: list, chosen: list, rejected: list) -> dict:
    name = identity(prompt, chosen, rejected)
    return {"id": name, "source": source, "licence": licence, "prompt": prompt, "chosen": chosen, "rejected": rejected}
