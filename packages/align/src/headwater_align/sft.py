"""Stage `sft`: supervised fine-tuning on demonstrations (InstructGPT, arXiv:2203.02155, section 3.5).

The loss is on what the assistant says, its <|end|> included, in every turn; questions and markers are context only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import job, jsonl
from ._contracts.errors import UserError
from ._contracts.sequences import join, pack, packed
from ._contracts.stage import Run
from .batching import POOL, length_buckets, pad
from .chat_format import ChatFormat, Rendered
from .config import SftConfig
from .engine import (
    Loaded,
    export,
    next_token_loss,
    pretrained,
    row_limit,
    settings_of,
    torch,
)
from .instructions import read_split
from .training import Plan, first_and_last, learn, read_log


@dataclass
class Prepared:
    """Rows ready for training, and what became of the others."""

    rows: list[Rendered] = field(default_factory=list)
    cut: int = 0
    """Rows that lost their end to the length limit."""
    rejects: list[dict] = field(default_factory=list)
    """{"id", "reason"} of rows of which the limit left nothing to learn."""


def run(run: Run) -> None:
    """Train, and write the export, log.jsonl, flight.jsonl, rejects.jsonl and metrics.json."""
    job.start(run, train, "model")
    loaded = job.trained(run, run.inputs["model"])
    data = read(run, loaded)
    export(run.out, loaded, data.chat, "lm")
    jsonl.write(run.out / "rejects.jsonl", data.train.rejects + data.heldout.rejects)
    log = read_log(run.out)
    before, after = first_and_last(log, "heldout_loss")
    epochs = run.config.epochs
    run.write_metrics(
        {
            "steps": len(data.batches),
            "train_rows": len(data.train.rows),
            "heldout_rows": len(data.heldout.rows),
            "rows_cut": data.train.cut + data.heldout.cut,
            "rows_set_aside": len(data.train.rejects) + len(data.heldout.rejects),
            "tokens": sum(data.lengths) * epochs,
            "supervised_tokens": sum(sum(row.supervised) for row in data.train.rows) * epochs,
            "train_loss": first_and_last(log, "loss")[1],
            "heldout_loss_before": before,
            "heldout_loss": after,
        }
    )


def train(run: Run, rank_files: Path | None) -> None:
    """One rank's part of the training."""
    config: SftConfig = run.config
    settings = settings_of(config, run.stage.name)
    loaded = pretrained.load(run.inputs["model"], dtype=pretrained.TYPES[config.dtype], dropout=config.dropout)
    data = read(run, loaded)
    run.log(f"{len(data.train.rows)} rows, {data.train.cut} cut at {data.limit} tokens, "
            f"{len(data.train.rejects)} set aside")  # fmt: skip
    multiple = math.lcm(8, settings.parallel.position_parts)
    batches: Callable[..., list[dict]] = partial(microbatches, multiple=multiple)
    if config.pack:
        batches = partial(packed_microbatches, capacity=data.limit, multiple=multiple)
        sequences = sum(len(pack([data.lengths[n] for n in batch], data.limit)) for batch in data.batches)
        full = sum(data.lengths) * config.epochs / (sequences * data.limit)
        run.log(f"{sequences} sequences of {data.limit} tokens in {len(data.batches)} steps, {full:.0%} full")
    held = sorted(data.heldout.rows, key=lambda row: len(row.ids))
    plan = Plan(
        data.batches,
        data.lengths,
        lambda numbers: batches([data.train.rows[n] for n in numbers], config.micro_batch, data.chat.pad),
        next_token_loss,
        len(held),
        lambda numbers: batches([held[n] for n in numbers], config.micro_batch, data.chat.pad),
    )
    learn(run, settings, loaded, plan, rank_files, config.evaluate_every)


@dataclass(frozen=True)
class Data:
    """What a run learns from, in ids."""

    train: Prepared
    heldout: Prepared
    batches: list[list[int]]
    """Rows of `train` a step, over all epochs."""
    lengths: list[int]
    chat: ChatFormat
    limit: int
    """Tokens a row."""


def read(run: Run, loaded: Loaded) -> Data:
    """Both sides of the instructions artefact, and the plan of batches; a function of config and inputs alone.

    Raises:
        UserError: nothing to train on or nothing held out.
    """
    config: SftConfig = run.config
    chat = ChatFormat(loaded.tokenizer)
    limit = row_limit(config.max_length, loaded)
    train, heldout = (prepare(read_split(run.inputs["instructions"], s), chat, limit) for s in ("train", "heldout"))
    if not train.rows or not heldout.rows:
        raise UserError("no row to train on or none held out; give more instructions or raise max_length")
    lengths = [len(row.ids) for row in train.rows]
    pool = 1 if config.pack else POOL  # packed rows need not be of like length
    epochs = [length_buckets(lengths, config.batch_size, config.seed, epoch, pool) for epoch in range(config.epochs)]
    return Data(train, heldout, [batch for epoch in epochs for batch in epoch], lengths, chat, limit)


def prepare(records: Sequence[dict], chat: ChatFormat, limit: int) -> Prepared:
    """Render records, cut them at `limit` tokens and count what was cut.

    Raises:
        UserError: a record in which the assistant says nothing, named by its id.
    """
    made = Prepared()
    for record, row in zip(records, chat.render([r["messages"] for r in records]), strict=True):
        if not any(row.supervised):
            raise UserError(f"instruction {record['id']}: every token is masked, the assistant says nothing; remove it")
        if not any(row.cut(limit).supervised):
            made.rejects.append({"id": record["id"], "reason": "the prompt alone fills the row"})
            continue
        made.cut += len(row.ids) > limit
        made.rows.append(row.cut(limit))
    return made


def microbatches(rows: Sequence[Rendered], size: int, filler: int, multiple: int = 8) -> list[dict]:
    """Micro-batches of at most `size` rows: tokens, labels (int64) and loss_mask (bool), each [rows, positions].

    Args:
        multiple: what positions are rounded up to.
    """
    made = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        made.append(
            {
                "tokens": pad([row.ids[:-1] for row in part], filler, multiple=multiple),
                "labels": pad([row.ids[1:] for row in part], filler, multiple=multiple),
                "loss_mask": pad([row.supervised[1:] for row in part], False, multiple=multiple),
            }
        )
    return made


def packed_microbatches(
    rows: Sequence[Rendered], size: int, filler: int, capacity: int, multiple: int = 8
) -> list[dict]:
    """Micro-batches of at most `size` sequences, in each of which several rows lie end to end.

    Keys as in `microbatches`, and attention_mask int64 [sequences, positions]: which row a position belongs to, so that
    attention stays within it. The model's positions are rotary, hence relative: a row may begin anywhere.

    Args:
        capacity: tokens of a sequence; no row is longer.
    """
    bins = pack([len(row.ids) for row in rows], capacity)
    ids = [row.ids for row in rows]
    supervised = [[*row.supervised[1:], False] for row in rows]  # a row's last id has no label
    made = []
    for start in range(0, len(bins), size):
        part = bins[start : start + size]
        sheet = packed(ids, part, filler, multiple=multiple, ignored=filler)
        made.append(
            {
                "tokens": torch.from_numpy(sheet.ids),
                "labels": torch.from_numpy(sheet.labels),
                "loss_mask": pad(join(supervised, part), False, multiple=multiple),
                "attention_mask": torch.from_numpy(sheet.segments),
            }
        )
    return made
