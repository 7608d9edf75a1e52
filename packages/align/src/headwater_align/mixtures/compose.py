"""The mixture itself: which examples and conversations come, how often, in which words, and what of it was wanted.

The order of things is what keeps the sides apart. Held-out clusters are read first, so that nothing of theirs can be
demonstrated elsewhere; examples are split by group before any is put into words, so that solved examples come from the
training side; and only then are rows counted out and phrased.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from .._contracts.errors import UserError
from ..config import InstructionsConfig
from ..conversation import identity, is_heldout, prompt_key
from ..instructions import demonstrations, reject
from ..overlap import ItemIndex
from ..readers import Row, Source, sources_with_role
from ..splitting import split_by_prompt, with_split
from .allocation import allocate
from .catalogue import tasks_of
from .config import Task
from .examples import Example, balanced, draw_options, examples, first_groups, task_rows
from .realised import realised
from .templates import Templates, longest


@dataclass
class Member:
    """A task or a source of conversations, with what it has to give."""

    name: str
    task: Task | None
    """None for conversations."""
    train: list
    """Examples, or records of conversations, in order of id."""
    heldout: list
    wanted: int = 0
    given: int = 0
    templates: Templates | None = None
    rows: list[dict] = field(default_factory=list)
    heldout_rows: list[dict] = field(default_factory=list)


@dataclass
class Composed:
    """What the stage writes."""

    split: dict[str, list[dict]]
    unseen: list[dict]
    rejects: list[dict]
    mixture: dict


def compose(config: InstructionsConfig, sources: Path, items: Path | None, log: Callable[[str], None]) -> Composed:
    """Read, split, count out and phrase; nothing is written.

    Raises:
        UserError: a source that is not there, no training row at all.
        UsageError: a task, cluster or rate that does not fit the others.
    """
    tasks = tasks_of(config)
    index = ItemIndex.from_artefact(items) if items else None
    rejects: list[dict] = []
    read: dict[str, list[Example]] = {}
    cached: dict[tuple[str, str], list[Row]] = {}
    for name, task in tasks.items():
        source = sources_with_role(sources, "", (task.source,))[0] if task.source else None
        if not source or (task.source, task.reader) not in cached:  # two tasks may read one dictionary
            cached[task.source, task.reader] = list(task_rows(task, source))
        made, refused = examples(name, task, cached[task.source, task.reader])
        rejects += [{**reject(row, reason), "task": name} for row, reason in refused]
        read[name] = made
    away = {name for name, task in tasks.items() if task.cluster in config.heldout_clusters}
    unseen_index = ItemIndex([value for name in sorted(away) for e in read[name] for value in e.fields.values()])

    members: list[Member] = []
    unseen: list[dict] = []
    dropped: Counter[str] = Counter()
    limit = config.mixture.max_characters
    for name, task in tasks.items():
        held_out = name in away
        if held_out:
            ordered = sorted(read[name], key=lambda e: (identity(e.group), e.id))
            if task.cases:
                whole, ordered = len(ordered), balanced(ordered)
                dropped["unseen, to balance the answers"] += whole - len(ordered)
            asked_for = first_groups(ordered, lambda e: e.group, config.unseen_rows)
            kept, refused_by = _take(task, asked_for, None, limit, index, None)
        else:
            kept, refused_by = _take(task, read[name], config.max_rows.get(name), limit, index, unseen_index)
        rejects += [_reject(example, reason) for example, reason in refused_by]
        if not kept:
            why = Counter(r["reason"] for r in rejects if r.get("task") == name).most_common(1)
            said = f": {why[0][1]} times {why[0][0]}" if why else ""
            raise UserError(f"task {name} has no usable example{said}; correct that, or leave it out of `tasks`")
        if held_out:
            unseen += _unseen(task, kept, config)
            log(f"{name}: {len(kept)} examples, held out with its cluster {task.cluster}")
            continue
        side = {
            e.id: is_heldout(prompt_key([{"role": "user", "content": e.group}]), config.heldout_fraction) for e in kept
        }
        train, heldout = ([e for e in kept if side[e.id] is where] for where in (False, True))
        if isinstance(task.options, int):
            train, heldout = (draw_options(of, train, task.options, config.mixture.seed) for of in (train, heldout))
        members.append(Member(name, task, train, heldout, templates=Templates(task, config.mixture, train)))
        log(f"{name}: {len(kept)} examples")
    for source in _conversations(config, sources, bool(tasks)):
        cap = config.max_rows.get(source.name)
        records, refusals = demonstrations(source, config.phrasings, cap, index, unseen_index if away else None)
        sides = split_by_prompt(records, config.heldout_fraction)
        members.append(Member(source.name, None, sides["train"], sides["heldout"]))
        rejects += refusals
        log(f"{source.name}: {len(records)} conversations, {len(refusals)} rejects")

    wanted, given = allocate({m.name: len(m.train) for m in members}, config.mixture)
    split: dict[str, dict[str, dict]] = {"train": {}, "heldout": {}}
    for member in members:
        member.wanted, member.given = wanted.get(member.name, 0), given.get(member.name, 0)
        member.rows = _fill(member, member.train, member.given, split["train"], dropped)
    asked = {prompt_key(record["messages"]) for record in split["train"].values()}
    for member in members:
        # As much of the held-out side as of the training side, and nothing twice.
        number = round(len(member.heldout) * min(Fraction(1), Fraction(member.given, max(1, len(member.train)))))
        member.heldout_rows = _fill(member, member.heldout, number, split["heldout"], dropped, asked)
    if not split["train"]:
        raise UserError("no training row; give more sources or tasks")
    sorted_split = {side: [of[key] for key in sorted(of)] for side, of in split.items()}
    mixture = realised(members, config, dropped, unseen)
    log(f"{len(split['train'])} training rows of {sum(wanted.values())} wanted, {len(split['heldout'])} held out")
    return Composed(sorted_split, sorted(unseen, key=lambda r: (r["task"], r["group"], r["id"])), rejects, mixture)


def _conversations(config: InstructionsConfig, sources: Path, optional: bool) -> list[Source]:
    """The sources of conversations; none is needed where tasks are tuned on."""
    try:
        return sources_with_role(sources, "instructions", config.sources)
    except UserError:
        if config.sources or not optional:
            raise
        return []


def _take(
    task: Task, found: list[Example], cap: int | None, limit: int, items: ItemIndex | None, unseen: ItemIndex | None
) -> tuple[list[Example], list[tuple[Example, str]]]:
    """The `cap` first of those that are short enough and hold no benchmark item and nothing of a held-out cluster; and
    the others that were looked at, with the reason."""
    kept: list[Example] = []
    refused = []
    for example in found:
        if cap is not None and len(kept) == cap:
            break
        if limit and longest(task, example) > limit:
            refused.append((example, "longer than mixture.max_characters"))
        elif items is not None and (
            items.found_in(example.text) or any(items.holds(f"{v} {example.answer}") for v in example.fields.values())
        ):
            refused.append((example, "holds a benchmark item"))
        elif unseen is not None and unseen.found_in(example.text):
            refused.append((example, "holds a row of a held-out cluster"))
        else:
            kept.append(example)
    return kept, refused


def _fill(
    member: Member,
    pool: list,
    number: int,
    into: dict[str, dict],
    dropped: Counter[str],
    forbidden: frozenset[str] | set[str] = frozenset(),
) -> list[dict]:
    """Add `number` rows of the member to one side, going round its pool, each time in other words; return them."""
    side = "heldout" if pool is member.heldout else "train"
    rounds = -(-number // len(pool)) if pool else 0
    made: list[dict] = []
    for repetition, at in ((turn, at) for turn in range(rounds) for at in range(len(pool))):
        if len(made) == number:
            break
        record = _record(member, pool[at], repetition)
        if record is None:
            dropped["longer than mixture.max_characters"] += 1
        elif record["id"] in into:
            dropped["conversation already there"] += 1
        elif prompt_key(record["messages"]) in forbidden:
            dropped["asked in training"] += 1
        else:
            into[record["id"]] = with_split(record, side)
            made.append(into[record["id"]])
    return made


def _record(member: Member, one: Example | dict, repetition: int) -> dict | None:
    if isinstance(one, dict):
        return one if not repetition else {**one, "id": identity(one["messages"], repetition)}
    assert member.templates is not None and member.task is not None
    prompted = member.templates.prompt(one, repetition)
    if prompted is None:
        return None
    return {
        "id": identity(prompted.messages),
        "source": one.source,
        "licence": one.licence,
        "messages": prompted.messages,
        "task": one.task,
        "cluster": member.task.cluster,
        "template": {
            "kind": prompted.kind,
            "phrasing": prompted.phrasing,
            "options": prompted.options,
            "exemplars": list(prompted.exemplars),
        },
        "example": one.id,
    }


def _unseen(task: Task, kept: list[Example], config: InstructionsConfig) -> list[dict]:
    """Zero-shot prompts with answer and options."""
    if isinstance(task.options, int):
        kept = draw_options(kept, kept, task.options, config.mixture.seed)
    templates = Templates(task, config.mixture, [])
    made = []
    for example in kept:
        phrasing, question = templates.unseen(example)
        messages = [{"role": "user", "content": question.strip()}]
        record = {
            "id": identity(messages, example.id),
            "source": example.source,
            "licence": example.licence,
            "messages": messages,
            "task": example.task,
            "cluster": task.cluster,
            "group": identity(example.group),
            "phrasing": phrasing,
            "answer": example.answer,
            "options": list(example.options) if example.options else None,
        }
        made.append(with_split(record, "unseen"))
    return made


def _reject(example: Example, reason: str) -> dict:
    """A line of rejects.jsonl for an example that its row did make."""
    return {"source": example.source, "row": None, "reason": reason, "task": example.task, "example": example.id}
