"""Stage `reward`: a reward model from comparisons (InstructGPT, arXiv:2203.02155, section 3.5, eq. 1 with K = 2).

It starts from the SFT model with a scalar head of zeros, so at first every answer is as good as every other. Its
scores are then shifted and scaled so that the chosen answers of the training pairs have mean 0 and deviation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import job
from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from ._contracts.sequences import truncate
from ._contracts.stage import Run
from .batching import length_buckets, pad
from .chat_format import ChatFormat
from .config import RewardConfig
from .engine import Batch, Loaded, check_layout, export, make_trainer, pretrained, row_limit, settings_of
from .instructions import read_split
from .intervals import wilson
from .preference import pairs_of
from .reward_model import NORMALISATION, last_values
from .training import Plan, first_and_last, fit, read_log, write_jsonl


@dataclass(frozen=True)
class Pair:
    """One comparison in ids: the prompt with either answer."""

    chosen: list[int]
    rejected: list[int]
    source: str

    @property
    def longest(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.chosen), len(self.rejected))


@dataclass
class Prepared:
    """Pairs ready for training, and what became of the others."""

    pairs: list[Pair] = field(default_factory=list)
    cut: int = 0
    """Pairs of which a side lost its end to the length limit."""
    rejects: list[dict] = field(default_factory=list)
    """{"id", "reason"} of pairs whose sides the limit made equal."""


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(chosen - rejected) of each pair [B]: the comparison's negative log-likelihood (eq. 1)."""
    return -F.logsigmoid(chosen - rejected)


def length_baseline(train: Sequence[int], heldout: Sequence[int]) -> float:
    """Held-out accuracy of knowing nothing but length: "longer wins" or "shorter wins", as the training pairs say.

    Args:
        train, heldout: length of chosen less length of rejected, a number a pair; a tie counts one half.
    """
    sign = 1 if sum(gap > 0 for gap in train) >= sum(gap < 0 for gap in train) else -1
    return sum(0.5 if gap == 0 else float(sign * gap > 0) for gap in heldout) / len(heldout)


def normalisation(reference: Tensor) -> tuple[float, float]:
    """(gain, bias) that give raw rewards [N] mean 0 and standard deviation 1.

    Raises:
        UserError: the rewards do not differ: the model learnt nothing.
    """
    mean, deviation = reference.double().mean().item(), reference.double().std(unbiased=False).item()
    if not deviation > 1e-6:
        raise UserError("the reward model gives every answer the same reward; raise lr or epochs, or add pairs")
    return 1 / deviation, -mean / deviation


def run(run: Run) -> None:
    """Train, normalise, measure, and write the export, reward.json, log.jsonl, rejects.jsonl and metrics.json."""
    config: RewardConfig = run.config
    job.start(run, train)
    loaded = job.trained(run, run.inputs["model"], head="scalar")
    data = read(run, loaded)
    filler, pairs = data.chat.pad, data.train.pairs
    export(run.out, loaded, data.chat, "scalar")
    gain, bias = normalisation(last_values(loaded.model, [p.chosen for p in pairs], filler, config.micro_batch))
    about = {"gain": gain, "bias": bias, "reference": "chosen answers of the training pairs: mean 0, deviation 1"}
    write_atomic(run.out / NORMALISATION, canonical_json(about))
    write_jsonl(run.out / "rejects.jsonl", data.train.rejects + data.heldout.rejects)
    log = read_log(run.out)
    run.write_metrics(
        {
            "steps": len(data.batches),
            "train_pairs": len(pairs),
            "heldout_pairs": len(data.heldout.pairs),
            "pairs_cut": data.train.cut + data.heldout.cut,
            "pairs_set_aside": len(data.train.rejects) + len(data.heldout.rejects),
            "train_loss": first_and_last(log, "loss")[1],
            "heldout_loss": first_and_last(log, "heldout_loss")[1],
            "gain": gain,
            "bias": bias,
            **judge(loaded, pairs, data.heldout.pairs, filler, config.micro_batch),
        }
    )


def train(run: Run, rank_files: Path | None) -> None:
    """One rank's part of the training."""
    config: RewardConfig = run.config
    settings = settings_of(config, run.stage.name)
    loaded = pretrained.load(run.inputs["model"], head="scalar", dtype=pretrained.TYPES[config.dtype])
    check_layout(settings, loaded.config, run.stage.name)
    data = read(run, loaded)
    run.log(f"{len(data.train.pairs)} pairs, {data.train.cut} cut, {len(data.train.rejects)} set aside")
    held = sorted(data.heldout.pairs, key=lambda pair: pair.longest)
    plan = Plan(
        data.batches,
        [len(pair.chosen) + len(pair.rejected) for pair in data.train.pairs],
        lambda numbers: microbatches([data.train.pairs[n] for n in numbers], config.micro_batch, data.chat.pad),
        pair_loss,
        len(held),
        lambda numbers: microbatches([held[n] for n in numbers], config.micro_batch, data.chat.pad),
    )
    trainer = make_trainer(loaded.model, config.optimizer, len(plan.batches))
    every = -(-len(data.batches) // config.epochs)
    fit(run, settings.model_copy(update={"validate_every": every}), trainer, loaded, plan, rank_files)
    job.leave_weights(run, model=trainer)


@dataclass(frozen=True)
class Data:
    """What a run learns from, in ids."""

    train: Prepared
    heldout: Prepared
    batches: list[list[int]]
    chat: ChatFormat


def read(run: Run, loaded: Loaded) -> Data:
    """Both sides of the preferences artefact, and the plan of batches.

    Raises:
        UserError: nothing to train on or nothing held out.
    """
    config: RewardConfig = run.config
    chat = ChatFormat(loaded.tokenizer)
    limit = row_limit(config.max_length, loaded)
    train, heldout = (prepare(read_split(run.inputs["preferences"], s), chat, limit) for s in ("train", "heldout"))
    if not train.pairs or not heldout.pairs:
        raise UserError("no pair to train on or none held out; give more preferences or raise max_length")
    lengths = [pair.longest for pair in train.pairs]
    epochs = [length_buckets(lengths, config.batch_size, config.seed, epoch) for epoch in range(config.epochs)]
    return Data(train, heldout, [batch for epoch in epochs for batch in epoch], chat)


def prepare(records: Sequence[dict], chat: ChatFormat, limit: int) -> Prepared:
    """Render every pair's sides, cut them at `limit` tokens, count what was cut, set aside what became equal."""
    made = Prepared()
    for record in records:
        answers = [[*record["prompt"], {"role": "assistant", "content": text}] for text in record["responses"]]
        rows = [rendered.ids for rendered in chat.render(answers)]
        for better, worse in pairs_of(record):
            pair = Pair(truncate(rows[better], limit), truncate(rows[worse], limit), record["source"])
            if pair.chosen == pair.rejected:
                made.rejects.append({"id": record["id"], "reason": "within the length limit both answers are the same"})
                continue
            made.cut += max(len(rows[better]), len(rows[worse])) > limit
            made.pairs.append(pair)
    return made


def microbatches(pairs: Sequence[Pair], size: int, filler: int) -> list[dict]:
    """Micro-batches of at most `size` pairs.

    Keys: tokens int64 [2 x pairs, positions], the chosen first; last int64 [2 x pairs], each row's last position.
    """
    made = []
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        rows = [pair.chosen for pair in part] + [pair.rejected for pair in part]
        last = torch.tensor([len(row) - 1 for row in rows])
        made.append({"tokens": pad(rows, filler, multiple=8), "last": last})
    return made


def pair_loss(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss function for the trainer: sum over pairs, number of pairs, sums of accuracy and margin.

    Args:
        values: float32 [2 x pairs, positions], the scalar head's.
    """
    rewards = values.gather(1, batch["last"][:, None])[:, 0]
    chosen, rejected = rewards.chunk(2)
    correct = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
    count = torch.tensor(len(chosen), device=values.device)
    return (
        bradley_terry(chosen, rejected).sum(),
        count,
        {"accuracy": correct.sum(), "margin": (chosen - rejected).sum()},
    )


def judge(loaded: Loaded, train: list[Pair], heldout: list[Pair], filler: int, size: int) -> dict:
    """Accuracy on held-out pairs with its 95% interval, over all and by source, beside the length-only baseline."""
    chosen, rejected = (
        last_values(loaded.model, [getattr(pair, side) for pair in heldout], filler, size)
        for side in ("chosen", "rejected")
    )
    right = (chosen > rejected).tolist()

    def among(source: str | None) -> dict:
        def belongs(pair: Pair) -> bool:
            return source is None or pair.source == source

        hits = [hit for hit, pair in zip(right, heldout, strict=True) if belongs(pair)]
        gaps = [[len(p.chosen) - len(p.rejected) for p in side if belongs(p)] for side in (train, heldout)]
        low, high = wilson(sum(hits), len(hits))
        return {
            "pairs": len(hits),
            "accuracy": sum(hits) / len(hits),
            "accuracy_low": low,
            "accuracy_high": high,
            "length_baseline": length_baseline(*gaps),
        }

    overall = among(None)
    del overall["pairs"]
    sources = sorted({pair.source for pair in heldout})
    return {**overall, "heldout_by_source": {source: among(source) for source in sources}}
