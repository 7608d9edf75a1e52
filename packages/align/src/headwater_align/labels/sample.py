"""Stage `sample`: completions of the current policy, or of several mixed, for people to rank.

Each completion draws from a generator of its own, named by seed, round, prompt and place, so it does not depend on
which others are written beside it (but for rounding). The plan is fixed before the first draw; each batch of prompts
and policy is kept in the work folder as soon as it is written, so a killed run goes on after it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import jsonl
from .._contracts.errors import UserError
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..chat_format import ChatFormat
from ..conversation import Message, Turns, asked, identity
from ..engine import pretrained, runtime
from ..instructions import read_split
from ..sampling import sample
from .config import SampleConfig
from .tasks import rank_of


@dataclass(frozen=True)
class Prompt:
    """What completions are drawn for."""

    id: str
    """Hash of the messages."""
    messages: list[Message]
    source: str
    licence: str
    split: str
    """Side that it stands on, "train" or "heldout"."""


@dataclass(frozen=True)
class Draw:
    """One completion to write, or written."""

    prompt: str
    """Id."""
    place: int
    """Which of the prompt's K it is, from 0."""
    text: str = ""
    finished: bool = True


def run(run: Run) -> None:
    """Write completions.jsonl, rejects.jsonl and metrics.json."""
    config: SampleConfig = run.config
    policies = policies_of(run)
    found = prompts_of(run.inputs["prompts"], config.side, config.turns)
    runtime.initialize(seed=config.seed)
    chosen, too_long = _choose(found, policies, config)
    if not chosen:
        raise UserError(f"no prompt of {len(found)} is short enough; raise max_prompt_length, or give more prompts")
    batches = [chosen[at : at + config.prompts_per_batch] for at in range(0, len(chosen), config.prompts_per_batch)]
    run.log(f"{len(chosen)} prompts in {len(batches)} batches, {len(too_long)} left out as too long")
    written = _write_all(run, policies, batches)

    records: list[dict] = []
    rejects = [{"id": prompt.id, "reason": "prompt too long"} for prompt in too_long]
    lost: Counter[str] = Counter()
    for number, batch in enumerate(batches, 1):
        for prompt in batch:
            dealt = deal(prompt.id, list(policies), config)
            responses, writers, gone = distinct(written[prompt.id], dealt)
            lost += gone
            if len(responses) < 2:
                rejects.append({"id": prompt.id, "reason": "fewer than two distinct completions"})
                continue
            records.append(
                {
                    "id": identity(prompt.messages, responses, writers, config.round),
                    "source": prompt.source, "licence": prompt.licence, "split": prompt.split,
                    "prompt": prompt.messages, "responses": responses, "policies": writers,
                    "round": config.round, "batch": f"{config.round}-{number:03d}",
                }
            )  # fmt: skip
    if not records:
        raise UserError("no prompt has two distinct completions; raise temperature or responses")
    jsonl.write(run.out / "completions.jsonl", sorted(records, key=lambda r: (r["batch"], r["id"])))
    jsonl.write(run.out / "rejects.jsonl", sorted(rejects, key=lambda r: r["id"]))
    drawn = [draw for draws in written.values() for draw in draws]
    run.write_metrics(
        {
            "prompts": len(records),
            "responses": sum(len(r["responses"]) for r in records),
            "prompts_too_long": len(too_long),
            "prompts_set_aside": len(rejects) - len(too_long),
            "completions_drawn": len(drawn),
            "completions_empty": lost["empty"],
            "completions_equal": lost["equal"],
            "completions_cut": sum(not draw.finished for draw in drawn),
            "by_split": dict(sorted(Counter(r["split"] for r in records).items())),
            "by_policy": dict(sorted(Counter(name for r in records for name in r["policies"]).items())),
        }
    )
    run.log(f"{len(records)} prompts kept; {lost['equal']} completions equal to another, {lost['empty']} empty")


def policies_of(run: Run) -> dict[str, Path]:
    """Name -> export, in order of name; the input `policy` under the name that the config gives it.

    Raises:
        UserError: two policies of one name.
    """
    named = {name: path for name, path in run.inputs.items() if name not in ("prompts", "policy")}
    own = run.config.policy_name
    if own in named:
        raise UserError(f"two policies are called {own}; set policy_name to another name")
    return dict(sorted({**named, own: run.inputs["policy"]}.items()))


def prompts_of(artefact: Path, side: str, turns: Turns) -> list[Prompt]:
    """The distinct prompts, in order of id.

    Args:
        side: "train", "heldout" or "both".
    """
    found: dict[str, Prompt] = {}
    for split in ("train", "heldout") if side == "both" else (side,):
        for record, messages in asked(read_split(artefact, split), turns):
            prompt = Prompt(identity(messages), messages, record["source"], record["licence"], split)
            found.setdefault(prompt.id, prompt)
    return sorted(found.values(), key=lambda prompt: prompt.id)


def _choose(
    prompts: Sequence[Prompt], policies: dict[str, Path], config: SampleConfig
) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to sample, in an order that the seed draws, and those passed over as too long for a policy."""
    fits = []
    for folder in policies.values():
        context = pretrained.read_config(folder)[0].context
        limit = config.max_prompt_length or context - config.max_response_length
        if limit < 2 or limit + config.max_response_length > context:
            raise UserError(
                f"{folder}: max_prompt_length and max_response_length do not fit a context of {context}; lower them"
            )
        ids = ChatFormat(pretrained.read_tokenizer(folder)).prompts([prompt.messages for prompt in prompts])
        fits.append([len(row) <= limit for row in ids])
    chosen: list[Prompt] = []
    too_long: list[Prompt] = []
    marks = [number_of(config, prompt.id, "prompt") for prompt in prompts]
    for at in sorted(range(len(prompts)), key=lambda at: marks[at]):
        if len(chosen) == config.prompts:
            break
        (chosen if all(fit[at] for fit in fits) else too_long).append(prompts[at])
    return chosen, too_long


def deal(prompt: str, policies: Sequence[str], config: SampleConfig) -> list[str]:
    """Which policy writes each of a prompt's K completions: in turn, from one that the seed draws."""
    first = number_of(config, prompt, "policy") % len(policies)
    return [policies[(first + place) % len(policies)] for place in range(config.responses)]


def number_of(config: SampleConfig, *parts: object) -> int:
    """A number of 64 bits that seed, round and `parts` name."""
    return int(rank_of(config.seed, config.round, *parts)[:16], 16)


def distinct(draws: Iterable[Draw], writers: Sequence[str]) -> tuple[list[str], list[str], Counter[str]]:
    """The completions of one prompt that say something new, who wrote each, and how many were `empty` or `equal`.

    Args:
        draws: in order of place; writers: policy of each.
    """
    kept: dict[str, str] = {}
    lost: Counter[str] = Counter()
    for draw, writer in zip(draws, writers, strict=True):
        if not draw.text:
            lost["empty"] += 1
        elif draw.text in kept:
            lost["equal"] += 1
        else:
            kept[draw.text] = writer
    return list(kept), list(kept.values()), lost


def _write_all(run: Run, policies: dict[str, Path], batches: Sequence[Sequence[Prompt]]) -> dict[str, list[Draw]]:
    """Every completion of every prompt, by prompt id, in order of place."""
    config: SampleConfig = run.config
    folder = run.work / "drawn"
    folder.mkdir(exist_ok=True)
    done = len(list(folder.glob("*.json")))
    if done:
        run.log(f"going on after {done} of {len(policies) * len(batches)} batches")
    written: dict[str, list[Draw]] = {prompt.id: [] for batch in batches for prompt in batch}
    for policy, (name, export) in enumerate(policies.items()):
        loaded = None
        for number, batch in enumerate(batches):
            path = folder / f"{policy}-{number}.json"
            if not path.is_file():
                loaded = loaded or pretrained.load(export, dtype=pretrained.TYPES[config.dtype])
                wanted = [
                    (prompt, place)
                    for prompt in batch
                    for place, writer in enumerate(deal(prompt.id, list(policies), config))
                    if writer == name
                ]
                draws = write(loaded, wanted, config)
                write_atomic(path, json.dumps([vars(draw) for draw in draws], ensure_ascii=False))
                run.progress(f"{name}: batch {number + 1} of {len(batches)}")
            for row in json.loads(path.read_text("utf-8")):
                written[row["prompt"]].append(Draw(**row))
    return {name: sorted(draws, key=lambda draw: draw.place) for name, draws in written.items()}


def write(loaded: pretrained.Loaded, wanted: Sequence[tuple[Prompt, int]], config: SampleConfig) -> list[Draw]:
    """Let a policy complete prompts, `config.rows` of like length at a time.

    Args:
        wanted: (prompt, place) of each completion.
    """
    chat = ChatFormat(loaded.tokenizer)
    ids = chat.prompts([prompt.messages for prompt, _ in wanted])
    seeds = [number_of(config, prompt.id, place) for prompt, place in wanted]
    answers = sample(
        loaded.model, ids, chat, config.max_response_length, seeds, config.rows, config.temperature, config.top_p
    )
    return [
        Draw(prompt.id, place, chat.text(answer).strip(), answer[-1] in chat.stops)
        for (prompt, place), answer in zip(wanted, answers, strict=True)
    ]
