"""The pretrain stage: tokens and a plan in, a checkpoint and its loss curve out; killed at any time, it goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from . import checkpoint, launch, runtime
from ._contracts import manifest as artefacts
from ._contracts.config import resolved
from ._contracts.errors import UserError
from ._contracts.stage import Run
from .config import ModelConfig, OptimizerConfig, PretrainConfig, ScheduleConfig
from .facts import read_facts
from .gpt import build
from .pretrained import TYPES, end_of_text, read_tokenizer
from .saver import Saver
from .tokens import HeldOut, TrainingData
from .trainer import Trainer, next_token_loss
from .watchdog import Watchdog


def run(stage: Run) -> None:
    """Entry point of the stage. One rank trains in this process, more in processes of their own."""
    config: PretrainConfig = stage.config
    if config.parallel.ranks == 1:
        train(config, stage.inputs, stage.work, stage.out, stage.log, stage.progress)
        return
    plan = read_plan(stage.inputs["plan"])
    _check(config, ModelConfig(**plan["model"]), plan, stage.inputs)  # here, so that one process complains and not each
    job = {
        "config": resolved(config),
        "inputs": {name: str(path) for name, path in stage.inputs.items()},
        "work": str(stage.work),
        "out": str(stage.out),
    }
    path = stage.work / "job.json"
    artefacts.write_atomic(path, artefacts.canonical_json(job))
    launch.run(
        "headwater_model.pretrain",
        [str(path)],
        config.parallel.ranks,
        stage.work / "ranks",
        config.restarts,
        lambda event: stage.log(f"{event['what']} after step {event['step']}: {event['why']}"),
    )


def train(
    config: PretrainConfig,
    inputs: dict[str, Path],
    work: Path,
    out: Path,
    log: Callable[[str], None],
    progress: Callable[[str], None],
    rank_files: Path | None = None,
) -> None:
    """One rank's whole run: build or resume, train, validate, checkpoint, publish into `out`.

    Args:
        inputs: "tokens", "plan", "tokenizer" -> folder.
        work: keeps checkpoints, the loss curve and the dataset's index.
        out: the checkpoint artefact in the making; rank 0 writes it.
        rank_files: for heartbeat and stacks, where the launcher started this rank.

    Raises:
        UserError: inputs that do not belong together, a layout that does not divide the model.
        SystemExit: SIGTERM came; a checkpoint of the last step is in `work` (143).
    """
    plan = read_plan(inputs["plan"])
    model_config, steps = ModelConfig(**plan["model"]), config.steps or plan["steps"]
    _check(config, model_config, plan, inputs)
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // config.parallel.ranks))
    runtime.initialize(config.parallel, config.seed)
    rank, ranks = parallel_state.get_data_parallel_rank(), config.parallel.data
    tokenizer = read_tokenizer(inputs["tokenizer"])
    document_end = end_of_text(tokenizer, inputs["tokenizer"])
    data = TrainingData(
        inputs["tokens"], model_config.context, plan["steps"] * plan["batch"], config.seed, document_end, work / "index"
    )
    heldout = HeldOut(inputs["tokens"], model_config.context, tokenizer, document_end, config.heldout_tokens)
    optimizer = OptimizerConfig(**{**config.optimizer.model_dump(), "lr": plan["lr"]})
    trainer = Trainer(
        build(model_config, dtype=TYPES[config.precision], seed=config.seed), optimizer, _schedule(config, steps)
    )
    curve = Curve(work / "log.jsonl", log_every=config.log_every)
    found = checkpoint.newest_good(work / "checkpoints", log)
    if found is not None:
        trainer.load(found)
        log(f"going on from step {trainer.step_count}")
    curve.truncate(trainer.step_count)
    saver = Saver(work / "checkpoints", config.checkpoints, lambda event: _tell(event, log), resolved(model_config))
    watched = config.parallel.ranks > 1  # else this is the user's own process, which is not ours to end
    watchdog = Watchdog(config.restarts, rank_files, dist.get_rank(), trainer.step_count) if watched else None
    terminated = _Terminated()

    def validate() -> None:
        row = trainer.evaluate(heldout.batches(config.micro_batch, rank, ranks), next_token_loss)
        bits = heldout.bits_per_byte(row["loss"])
        curve.add({"step": trainer.step_count, "heldout_loss": row["loss"], "heldout_bits_per_byte": bits})
        log(f"step {trainer.step_count}: held-out loss {row['loss']:.4f}, {bits:.4f} bits per byte")

    if trainer.step_count == 0:
        validate()
    tokens = plan["batch"] * model_config.context
    clock, since = time.monotonic(), trainer.step_count
    while trainer.step_count < steps:
        batches = data.batch(trainer.step_count * plan["batch"], plan["batch"], config.micro_batch, rank, ranks)
        row = trainer.step(batches, next_token_loss)
        step = trainer.step_count
        if row["loss"] != row["loss"]:
            raise UserError(f"the loss is not a number at step {step}; lower plan.lr or train in float32")
        curve.train(step, step * tokens, row, last=step == steps)
        speed = (step - since) * tokens / (time.monotonic() - clock)
        progress(f"step {step}/{steps}  loss {row['loss']:.3f}  lr {row['lr']:.2e}  {speed:,.0f} tokens/s")
        if step % config.validate_every == 0 or step == steps:
            validate()
        if watchdog:
            watchdog.beat(step)
        stop = terminated.anywhere()
        if step % config.checkpoint_every == 0 or step == steps or stop:
            curve.flush()
            saver.save(step, trainer.state)
        saver.poll()
        if stop and step < steps:
            saver.wait()
            log(f"asked to end: step {step} is saved; run the same command to go on")
            raise SystemExit(143)
    terminated.restore()
    saver.wait()
    if watchdog:
        watchdog.stop()
    checkpoint.write(out / "weights", {"model": trainer.module.sharded_state_dict()})
    if dist.get_rank() == 0:
        _publish(out, config, plan, model_config, curve, heldout, trainer)
    dist.barrier()


class Curve:
    """The loss curve on disk, rank 0's: rows of training, averaged over `log_every` steps, and of validation."""

    def __init__(self, path: Path, log_every: int):
        self.path, self.log_every = path, log_every
        self.rows: list[dict[str, Any]] = []
        self._losses: list[float] = []

    def truncate(self, step: int) -> None:
        """Read what was written up to `step` and forget what came after."""
        if self.path.exists() and step:
            rows = [json.loads(line) for line in self.path.read_text().splitlines()]
            state = [r for r in rows if r["step"] <= step]
            self.rows = [r for r in state if "pending" not in r]
            pending = [r for r in state if "pending" in r and r["step"] == step]
            self._losses = pending[-1]["pending"] if pending else []

    def train(self, step: int, tokens: int, row: dict[str, float], last: bool) -> None:
        """Take one step's loss; every `log_every` steps, and at the last, a row."""
        self._losses.append(row["loss"])
        self._step = step
        if step % self.log_every == 0 or last:
            mean = sum(self._losses) / len(self._losses)
            self._losses = []
            self.add({"step": step, "tokens": tokens, "loss": mean, "lr": row["lr"], "grad_norm": row["grad_norm"]})

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row."""
        self.rows.append(row)
        self._step = row["step"]

    def text(self) -> str:
        """All rows as JSON lines."""
        return "".join(json.dumps(row) + "\n" for row in self.rows)

    def flush(self) -> None:
        """Write the rows, and the losses that wait for their row, so that a resumed run averages the same."""
        if dist.get_rank() == 0:
            pending = json.dumps({"step": self._step, "pending": self._losses}) + "\n"
            artefacts.write_atomic(self.path, self.text() + pending)


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


class _Terminated:
    """SIGTERM as a question to be asked at the end of a step, answered alike on every rank."""

    def __init__(self) -> None:
        self._here = False
        self._before = signal.signal(signal.SIGTERM, self._set)

    def _set(self, *_: object) -> None:
        self._here = True

    def anywhere(self) -> bool:
        if dist.get_world_size() == 1:
            return self._here
        flag = torch.tensor(int(self._here), device=cpu.DEVICE)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def restore(self) -> None:
        signal.signal(signal.SIGTERM, self._before)


def _check(config: PretrainConfig, model: ModelConfig, plan: dict, inputs: dict[str, Path]) -> None:
    """Refuse what cannot train, before the first step."""
    facts = read_facts(inputs["tokens"])
    ids = read_tokenizer(inputs["tokenizer"]).get_vocab_size()
    if not facts.vocabulary <= ids <= model.vocab:
        raise UserError(
            f"the tokens have {facts.vocabulary} ids, the tokenizer {ids}, the plan {model.vocab}: "
            "they were not made from one another; run encode and plan again"
        )
    try:
        config.parallel.check(model)
    except ValueError as e:
        raise UserError(f"pretrain.parallel: {e}") from None
    share = plan["batch"] / config.parallel.data
    if share % config.micro_batch:
        raise UserError(
            f"pretrain.micro_batch {config.micro_batch} does not divide the {share:g} sequences a rank and step"
        )


def _schedule(config: PretrainConfig, steps: int) -> ScheduleConfig:
    warmup = min(round(config.warmup * steps), steps - 1)
    decay = max(1, min(round(config.decay * steps), steps - warmup)) if config.schedule == "wsd" else 0
    return ScheduleConfig(kind=config.schedule, warmup=warmup, steps=steps, floor=config.floor, decay=decay)


def _publish(
    out: Path, config: PretrainConfig, plan: dict, model: ModelConfig, curve: Curve, heldout: HeldOut, trainer: Trainer
) -> None:
    """run.json, log.jsonl and metrics.json beside the weights."""
    state = {
        "model": resolved(model),
        "step": trainer.step_count,
        "tokens": trainer.step_count * plan["batch"] * model.context,
        "precision": config.precision,
        "head": "lm",
    }
    artefacts.write_atomic(out / "run.json", artefacts.canonical_json(state))
    artefacts.write_atomic(out / "log.jsonl", curve.text())
    checks = [row for row in curve.rows if "heldout_loss" in row]
    training = [row for row in curve.rows if "loss" in row]
    metrics = {
        "steps": trainer.step_count,
        "tokens": state["tokens"],
        "parameters": model.parameters,
        "flops": state["tokens"] * model.flops_per_token,
        "loss": training[-1]["loss"],
        "heldout_loss": checks[-1]["heldout_loss"],
        "heldout_bits_per_byte": checks[-1]["heldout_bits_per_byte"],
        "untrained_bits_per_byte": checks[0]["heldout_bits_per_byte"],
        "heldout_tokens": heldout.tokens,
        "heldout_bytes": heldout.bytes,
    }
    artefacts.write_atomic(out / "metrics.json", artefacts.canonical_json(metrics))


def _tell(event: dict[str, Any], log: Callable[[str], None]) -> None:
    if event["what"] != "checkpoint":
        log(f"step {event['step']}: {event['what']}: {event['why']}")


def _rank(path: Path, rank_files: Path | None) -> None:
    """One of several ranks, started by `run` or by torchrun."""
    job = json.loads(path.read_text())
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
    train(PretrainConfig(**job["config"]), inputs, Path(job["work"]), Path(job["out"]), log, progress, rank_files)
    runtime.shutdown()


if __name__ == "__main__":
    sys.exit(launch.as_rank(partial(_rank, Path(sys.argv[1]))))
