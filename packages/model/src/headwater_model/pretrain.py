"""The pretrain stage: tokens and a plan in, a checkpoint and its loss curve out; killed at any time, it goes on."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist

from . import checkpoint, final_state, launch, pretrained, runtime, width_transfer
from ._contracts import manifest as artefacts
from ._contracts.config import resolved
from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import ModelConfig, PretrainConfig
from .data_check import check as check_data
from .decentralised import exchange, mode
from .flight_log import NAME as FLIGHT
from .flight_log import Event, FlightLog
from .flight_log import changes as changes_of
from .flight_log import read as read_flight
from .gpt import GPT
from .loop import STATE, Loop
from .model import build_chunks
from .onlooker import Onlooker
from .saver import Saver
from .steering import Settings
from .task import Pretraining, build_task, token_inputs

FINAL = "final"
"""The folder of the artefact from which training goes on exactly (`final_state`)."""
BITS = "heldout_bits_per_byte"
ASIDE = ("tracking", "restarts", "launch")
"""Sections of the config that are no part of the run's identity."""


def run(stage: Run) -> None:
    """Entry point of the stage. One rank trains in this process, more in processes of their own."""
    config: PretrainConfig = stage.config
    plan = read_plan(stage.inputs["plan"])
    check(config, plan, stage.inputs)  # here, so that one process complains and not each
    if config.ranks == 1 and config.launch.kind == "here":
        measured = train(config, stage.inputs, stage.work, stage.out, stage.log, stage.progress, name=stage.fingerprint)
        stage.measured.update(measured)
        return
    job = {
        "config": {**resolved(config), **{name: resolved(getattr(config, name)) for name in ASIDE}},
        "inputs": {name: str(path) for name, path in stage.inputs.items()},
        "work": str(stage.work),
        "out": str(stage.out),
        "name": stage.fingerprint,
    }
    path = stage.work / "job.json"
    artefacts.write_atomic(path, artefacts.canonical_json(job))
    journal = FlightLog(stage.work)

    def restarted(event: dict[str, Any]) -> None:
        journal.note(event)
        stage.log(f"{event['what']} after step {event['step']}: {event['why']}")

    launch.start(
        config.launch, "headwater_model.pretrain", [str(path)], config.ranks, stage.work / "ranks",
        config.restarts, restarted, dispensable=config.asynchronous is not None,
    )  # fmt: skip
    stage.measured.update(json.loads((stage.work / "measured.json").read_text()))


def train(
    config: PretrainConfig,
    inputs: dict[str, Path],
    work: Path,
    out: Path,
    log: Callable[[str], None],
    progress: Callable[[str], None],
    report: Callable[[int, float], None] | None = None,
    rank_files: Path | None = None,
    name: str = "run",
) -> dict[str, Any]:
    """One rank's whole run: build or resume, train, validate, checkpoint, publish into `out`.

    Args:
        inputs: "plan", "tokenizer", optionally "start" (where weights come from) and "flight" (a checkpoint whose
            changes are made again); every other one is a tokens artefact.
        work: keeps checkpoints, the loss curve and the dataset's index; of local SGD each replica's below.
        out: the checkpoint artefact in the making; the first replica, or the server, writes it.
        report: called with step and held-out loss at each validation; what it raises ends the run.
        rank_files: for heartbeat and stacks of a rank that a launcher started; a hang is looked for only then.
        name: of the run, for trackers.

    Returns:
        What differs from run to run: tokens a second, utilisation, memory; nothing of a worker.

    Raises:
        UserError: the run cannot begin, or diverged beyond help.
        SystemExit: SIGTERM came; a checkpoint of the last step is in `work` (143).
    """
    plan = read_plan(inputs["plan"])
    model_config, steps = ModelConfig(**plan["model"]), config.steps or plan["steps"]
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // config.ranks))
    peers = mode.start(config)
    replica = peers.rank if peers else 0
    first = replica == dist.get_rank() == 0
    work = mode.folder(config, work, peers)
    work.mkdir(parents=True, exist_ok=True)
    settings = first_settings(config, plan, steps)
    model_config = model_config.model_copy(update={"activation": settings.activation})
    task = build_task(config, model_config, inputs, settings.batch, steps, work / "index", log, replica)
    chunks = _chunks(config, model_config)
    if peers and config.asynchronous and not first:
        mode.work(chunks, settings, task, peers)
        return {}
    trainer = mode.build_trainer(config, chunks, settings, steps, peers, log)
    flight = FlightLog(work, writes=dist.get_rank() == 0)
    saver = Saver(
        work / "checkpoints", config.checkpoints, partial(_tell, flight, log), resolved(model_config),
        partial(peers.any, False) if peers and config.local else lambda: None,
    )  # fmt: skip
    onlooker = Onlooker(config, model_config, trainer, task.tokenizer, steps, name, log, progress, rank_files, first)
    loop = Loop(
        trainer, task, settings, config, steps, work, planned(config, inputs), flight,
        mode.policy(config, log), saver, onlooker, log, report,
    )  # fmt: skip
    found = mode.newest(config, work / "checkpoints", peers, log)
    if found is not None:
        checkpoint.refuse_other(found, resolved(model_config))
        loop.resume(found)
    elif "start" in inputs:
        _start(loop, inputs["start"], model_config, config, log)
    with onlooker.watching(loop.curve.rows), mode.serving(trainer):
        loop.run()
    task.report_read(loop.place.consumed, log)
    if replica == 0:
        final_state.write(
            out / FINAL,
            trainer.save,
            resolved(config),
            {**task.identity(), "consumed": loop.place.consumed},
            torch.get_num_threads(),
        )
    if first:
        _publish(out, config, model_config, loop, task)
    dist.barrier()
    return onlooker.measured()


def first_settings(config: PretrainConfig, plan: dict[str, Any], steps: int) -> Settings:
    """What a run begins with, of what can be changed on the way."""
    transfer = config.optimizer.width_transfer
    lr = plan["lr"] * (plan["model"]["hidden"] / transfer.base if transfer else 1)  # the plan's is this width's
    return Settings(
        optimizer=config.optimizer.model_copy(update={"lr": lr}),
        schedule=config.schedule.over(steps, steps * plan["batch"] * plan["model"]["context"]),
        batch=plan["batch"],
        activation=plan["model"].get("activation", ModelConfig.model_fields["activation"].default),
    )


def planned(config: PretrainConfig, inputs: dict[str, Path]) -> list[Event]:
    """Changes known beforehand: the config's, or those that another run's flight log has.

    Raises:
        UserError: both are given.
    """
    own = [Event(c.step, "change", c.why, 0, {"set": c.set}) for c in config.changes]
    if "flight" not in inputs:
        return sorted(own, key=lambda event: event.step)
    if own:
        raise UserError("pretrain.changes and the input flight both say what to change; give one of them")
    return changes_of(read_flight(inputs["flight"] / FLIGHT))


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan artefact's content.

    Raises:
        UserError: no readable plan.json, a key missing, or a model that cannot be built.
    """
    path = Path(folder) / "plan.json"
    try:
        plan = json.loads(path.read_text())
        missing = [key for key in ("model", "batch", "steps", "tokens", "lr") if key not in plan]
        if missing:
            raise KeyError(*missing)
        ModelConfig(**plan["model"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        told = f"{', '.join(map(str, e.args))} is missing" if isinstance(e, KeyError) else " ".join(str(e).split())
        raise UserError(f"{path}: {told}; make the plan again (headwater-model plan)") from None
    return plan


def check(config: PretrainConfig, plan: dict[str, Any], inputs: dict[str, Path]) -> None:
    """Refuse what cannot train, before the first step.

    Raises:
        UserError: inputs that do not belong together, a layout that does not divide the model or the batch, a change
            that cannot be made, too little room for a checkpoint.
    """
    model, batch = ModelConfig(**plan["model"]), plan["batch"]
    check_data(token_inputs(inputs), config.data, inputs["tokenizer"], model.vocab, model.context)
    at_once = (
        config.micro_batch * config.parallel.data * (config.parallel.pipeline if config.parallel.chunks > 1 else 1)
    ) * (config.local.replicas if config.local else 1)
    try:
        config.parallel.check(model)
        if config.ramp:
            config.ramp.check(batch, at_once)
    except ValueError as e:
        raise UserError(f"pretrain.parallel: {e}" if "ramp" not in str(e) else f"pretrain.{e}") from None
    if batch % at_once:
        raise UserError(
            f"plan.batch {batch} is no multiple of the {at_once} sequences that the ranks take at once "
            "(pretrain.micro_batch x parallel.data, x parallel.pipeline with chunks, x local.replicas)"
        )
    settings = first_settings(config, plan, config.steps or plan["steps"])
    for event in planned(config, inputs):
        settings = settings.changed(event.details["set"], config.fixed)
        if settings.batch % at_once:
            raise UserError(f"pretrain.changes: batch {settings.batch} is no multiple of {at_once} sequences")


def _chunks(config: PretrainConfig, model: ModelConfig) -> list[GPT]:
    chunks = build_chunks(model, dtype=pretrained.TYPES[config.precision], seed=config.seed)
    if transfer := config.optimizer.width_transfer:
        for chunk in chunks:
            width_transfer.initialise(chunk, model, transfer)
    return chunks


def _start(loop: Loop, folder: Path, model: ModelConfig, config: PretrainConfig, log: Callable[[str], None]) -> None:
    """Begin with given weights: an export's, at step 0; or a checkpoint's whole state, at its step."""
    if (folder / FINAL).is_dir():
        final_state.verify(folder / FINAL)
        checkpoint.refuse_other(folder / FINAL, resolved(model))
        loop.go_on(folder / FINAL / final_state.STATE, json.loads((folder / STATE).read_text()))
        log(f"going on from step {loop.trainer.step_count} of {folder.name}")
        if loop.trainer.step_count >= loop.steps:
            raise UserError(
                f"{folder}: has {loop.trainer.step_count} steps already; set pretrain.steps above that to train on"
            )
        return
    loaded = pretrained.load(folder, dtype=pretrained.TYPES[config.precision])
    mine, theirs = _weights_of(model), _weights_of(loaded.config)
    if other := [name for name in mine if mine[name] != theirs[name]]:
        name = other[0]
        raise UserError(f"{folder}: {name} is {theirs[name]}, and {mine[name]} in the plan; pin it in plan.model")
    loop.trainer.take_weights(loaded.model)
    log(f"starting from the weights of {folder.name}")


def _weights_of(model: ModelConfig) -> dict[str, Any]:
    """What of a shape its weights must have been made for."""
    free = {"init", "init_std", "dropout", "attention_dropout", "balance_loss"}
    if model.position != "learned":
        free.add("context")
    told = model.model_copy(update={"ffn": model.ffn_width, "kv_heads": model.key_value_heads})
    return {name: value for name, value in resolved(told).items() if name not in free}


def _tell(flight: FlightLog, log: Callable[[str], None], event: dict[str, Any]) -> None:
    """A checkpoint that was written is worth a line of the journal; one that was not, of the terminal too."""
    flight.note(event)
    if event["what"] != "checkpoint":
        log(f"step {event['step']}: {event['what']}: {event['why']}")


def _publish(out: Path, config: PretrainConfig, model: ModelConfig, loop: Loop, task: Pretraining) -> None:
    """run.json, loop.json, log.jsonl, flight.jsonl and metrics.json beside the final state."""
    trainer, place, rows = loop.trainer, loop.place, loop.curve.rows
    state = {
        "model": resolved(model.model_copy(update={"activation": loop.settings.activation})),
        "step": trainer.step_count,
        "tokens": place.tokens,
        "precision": config.precision,
        "head": "lm",
    }
    artefacts.write_atomic(out / "run.json", artefacts.canonical_json(state))
    artefacts.write_atomic(out / STATE, artefacts.canonical_json(loop.saved_place()))
    artefacts.write_atomic(out / FLIGHT, loop.flight.text())
    loop.curve.write(out)
    checks = [row for row in rows if "heldout_loss" in row]
    training = [row for row in rows if "loss" in row]
    events = [event.what for event in loop.flight.events]
    metrics = {
        "steps": trainer.step_count,
        "tokens": place.tokens,
        "parameters": model.parameters,
        "flops": place.tokens * model.flops_per_token,
        "loss": training[-1]["loss"],
        **{key: value for key, value in checks[-1].items() if key != "step"},
        **{
            f"untrained_{key.removeprefix('heldout_')}": checks[0][key]
            for key in ("heldout_bits_per_byte",)
            if key in checks[0]
        },
        **task.metrics(place.consumed),
        **exchange.of_run(training),
        "events": {what: events.count(what) for what in sorted(set(events))},
    }
    artefacts.write_atomic(out / "metrics.json", artefacts.canonical_json(metrics))


def _rank(path: Path, rank_files: Path | None) -> None:
    """One of several ranks, started by `run`, torchrun or srun."""
    job = json.loads(path.read_text())
    runtime.read_slurm()
    first = os.environ["RANK"] == "0"
    last = [0.0]

    def log(text: str) -> None:
        if first:
            print(f"[pretrain] {text}", flush=True)

    def progress(text: str) -> None:
        if time.monotonic() - last[0] >= 5:
            last[0] = time.monotonic()
            log(text)

    inputs = {name: Path(folder) for name, folder in job["inputs"].items()}
    work = Path(job["work"])
    measured = train(
        PretrainConfig(**job["config"]), inputs, work, Path(job["out"]), log, progress,
        rank_files=rank_files, name=job.get("name", "run"),
    )  # fmt: skip
    if first:
        artefacts.write_atomic(work / "measured.json", artefacts.canonical_json(measured))
    runtime.shutdown()


if __name__ == "__main__":
    sys.exit(launch.as_rank(partial(_rank, Path(sys.argv[1]))))
