"""`headwater-eval run`: any model on named tasks or a suite, outside of a lineage; the same artefact as `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import yaml

from . import __version__, models, prompting, steering
from ._contracts.config import override, parse
from ._contracts.errors import UsageError, UserError
from ._contracts.manifest import manifest_hash, sha256_file, verify
from ._contracts.stage import Run, Stage, execute
from .catalogue import suite
from .config import EvaluateConfig, RunConfig
from .evaluate import Plan, score, score_here, write
from .parallel import world_size

STAGE = Stage(
    name="run",
    summary="Score any model on named tasks or a suite.",
    reads={},
    writes="results",
    cost="as evaluate",
    config=RunConfig,
    run="headwater_eval.run:run",
    code=("headwater_model?",),
)


def main(args: argparse.Namespace) -> None:
    """The command. Among ranks that a launcher started, the first one keeps the artefact and the others help."""
    config = configure(args)
    plan = Plan.from_json(config.plan)
    if world_size() > 1 and int(os.environ["RANK"]) > 0:
        score_here(plan, lambda text: None)
        return
    # A finished run is published again without a word to the other ranks, which would wait for this one.
    stage = dataclasses.replace(STAGE, reuse=world_size() == 1)
    execute(stage, "headwater-eval", __version__, config, {}, args.out, args.work)


def run(run: Run) -> None:
    """What `execute` calls."""
    config: RunConfig = run.config
    plan = dataclasses.replace(Plan.from_json(config.plan), parts=run.work / "parts")
    score(plan, config.ranks, run.work, run.log)
    write(run, plan)


def configure(args: argparse.Namespace) -> RunConfig:
    """The command line as the config of a stage, which holds the content of what the paths name.

    Raises:
        UserError: a model, task, suite, file or value that is none.
    """
    tasks = _tasks(args)
    values: dict[str, Any] = {
        "tasks": tasks,
        "limit": args.limit,
        "bias_limit": args.limit,
        "shots": args.shots,
        "ranks": args.ranks,
        "dtype": args.dtype,
        "threads": args.threads,
    }
    asked = parse(EvaluateConfig, override(values, args.set), "run")
    spec = models.resolve(
        args.model,
        _arguments(args.model_args),
        args.tokenizer,
        dtype=asked.dtype,
        threads=asked.threads,
        batch_tokens=asked.batch_tokens,
        batch_size=args.batch_size,
        overlap=asked.heldout.overlap,
        steering=steering.plain(asked.steering, args.toxicity),
        prompt=prompting.plain(asked.prompt),
    )
    if not args.items.is_dir():
        raise UserError(f"{args.items}: no such folder; --items names one of TASK.jsonl files (headwater-eval items)")
    if args.corpus:
        verify(args.corpus, ("corpus",))
    if args.toxicity:
        verify(args.toxicity, ("classifier",))
    cache = None if args.cache == Path("none") else args.cache
    if cache is None and args.cache is None and models.is_certain(spec):
        cache = args.work / "requests.sqlite"
    plan = Plan(
        spec, asked, args.items, args.corpus, args.work / "run", cache, args.toxicity, lenient=args.suite is not None
    )
    files = [args.items / f"{name}.jsonl" for name in sorted(tasks)]
    return parse(
        RunConfig,
        {
            **asked.model_dump(),
            "ranks": asked.ranks,
            "suite": args.suite,
            "model": models.identify(spec),
            "items": {path.stem: sha256_file(path) for path in files if path.is_file()},
            "corpus": args.corpus and manifest_hash(args.corpus),
            "toxicity_classifier": args.toxicity and manifest_hash(args.toxicity),
            "plan": plan.to_json(),
        },
        "run",
    )


def _tasks(args: argparse.Namespace) -> list[str]:
    if args.tasks is not None:
        return [name.strip() for name in args.tasks.split(",") if name.strip()]
    return [benchmark.name for benchmark in suite(args.suite)]


def _arguments(text: str) -> dict[str, Any]:
    """`k=v,k=v` with values in YAML, or one JSON object."""
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as e:
            raise UsageError(f"--model-args: not JSON ({e})") from None
    found = {}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--model-args {item}: write NAME=VALUE,NAME=VALUE")
        found[name.strip()] = yaml.safe_load(value)
    return found
