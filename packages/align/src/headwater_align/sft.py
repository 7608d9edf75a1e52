"""Stage `sft`: supervised fine-tuning on demonstrations (InstructGPT, arXiv:2203.02155, section 3.5).

The loss is on what the assistant says, its <|end|> included, in every turn; questions and markers are context only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from ._contracts.errors import UserError
from ._contracts.sequences import join, pack, packed
from ._contracts.stage import Run
from .batching import POOL, length_buckets, pad
from .chat_format import ChatFormat, Rendered
from .config import SftConfig
from .engine import export, make_trainer, next_token_loss, pretrained, row_limit, runtime
from .instructions import read_split
from .training import LogRow, fit, write_jsonl


@dataclass
class Prepared:
    """Rows ready for training, and what became of the others."""

    rows: list[Rendered] = field(default_factory=list)
    cut: int = 0
    """Rows that lost their end to the length limit."""
    rejects: list[dict] = field(default_factory=list)
    """{"id", "reason"} of rows of which the limit left nothing to learn."""


def run(run: Run) -> None:
    """Train, and write the export, log.jsonl, rejects.jsonl and metrics.json."""
    config: SftConfig = run.config
    runtime.initialize(seed=config.seed)
    loaded = pretrained.load(run.inputs["model"], dtype=pretrained.TYPES[config.dtype])
    chat = ChatFormat(loaded.tokenizer)
    limit = row_limit(config.max_length, loaded)
    train, heldout = (prepare(read_split(run.inputs["instructions"], s), chat, limit) for s in ("train", "heldout"))
    if not train.rows or not heldout.rows:
        raise UserError("no row to train on or none held out; give more instructions or raise max_length")
    run.log(f"{len(train.rows)} rows, {train.cut} cut at {limit} tokens, {len(train.rejects)} set aside")

    lengths = [len(row.ids) for row in train.rows]
    pool = 1 if config.pack else POOL  # packed rows need not be of like length
    epochs = [length_buckets(lengths, config.batch_size, config.seed, epoch, pool) for epoch in range(config.epochs)]
    plan = [batch for epoch in epochs for batch in epoch]
    batches: Callable[[Sequence[Rendered], int, int], list[dict]] = microbatches
    if config.pack:
        batches = partial(packed_microbatches, capacity=limit)
        sequences = sum(len(pack([lengths[n] for n in batch], limit)) for batch in plan)
        full = sum(lengths) * config.epochs / (sequences * limit)
        run.log(f"{sequences} sequences of {limit} tokens in {len(plan)} steps, {full:.0%} full")
    trainer = make_trainer(loaded.model, config.optimizer, len(plan))
    held = batches(sorted(heldout.rows, key=lambda row: len(row.ids)), config.micro_batch, chat.pad)

    def collate(numbers: Sequence[int]) -> list[dict]:
        return batches([train.rows[n] for n in numbers], config.micro_batch, chat.pad)

    def evaluate() -> LogRow:
        return {"heldout_loss": trainer.evaluate(held, next_token_loss)["loss"]}

    log = fit(run, trainer, plan, collate, next_token_loss, evaluate, config.evaluate_every or len(epochs[0]))
    export(run.out, loaded, trainer, chat, "lm")
    write_jsonl(run.out / "log.jsonl", log)
    write_jsonl(run.out / "rejects.jsonl", train.rejects + heldout.rejects)
    held_losses = [row["heldout_loss"] for row in log if "heldout_loss" in row]
    run.write_metrics(
        {
            "steps": len(plan),
            "train_rows": len(train.rows),
            "heldout_rows": len(heldout.rows),
            "rows_cut": train.cut + heldout.cut,
            "rows_set_aside": len(train.rejects) + len(heldout.rejects),
            "tokens": sum(lengths) * config.epochs,
            "supervised_tokens": sum(sum(row.supervised) for row in train.rows) * config.epochs,
            "train_loss": next(row["loss"] for row in reversed(log) if "loss" in row),
            "heldout_loss_before": held_losses[0],
            "heldout_loss": held_losses[-1],
        }
    )


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


def microbatches(rows: Sequence[Rendered], size: int, filler: int) -> list[dict]:
    """Micro-batches of at most `size` rows: tokens, labels (int64) and loss_mask (bool), each [rows, positions]."""
    made = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        made.append(
            {
                "tokens": pad([row.ids[:-1] for row in part], filler, multiple=8),
                "labels": pad([row.ids[1:] for row in part], filler, multiple=8),
                "loss_mask": pad([row.supervised[1:] for row in part], False, multiple=8),
            }
        )
    return made


def packed_microbatches(rows: Sequence[Rendered], size: int, filler: int, capacity: int) -> list[dict]:
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
        sheet = packed(ids, part, filler, multiple=8, ignored=filler)
        made.append(
            {
                "tokens": torch.from_numpy(sheet.ids),
                "labels": torch.from_numpy(sheet.labels),
                "loss_mask": pad(join(supervised, part), False, multiple=8),
                "attention_mask": torch.from_numpy(sheet.segments),
            }
        )
    return made
