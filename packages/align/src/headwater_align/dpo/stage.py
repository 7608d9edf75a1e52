"""Stage `dpo`: the policy learns from comparisons directly (Rafailov et al. 2023, arXiv:2305.18290).

The reference's log-probabilities are computed once, before training, so that no second model is held. A prompt with K
answers gives all pairs that differ in rank, and counts as one, as in the reward model's loss.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import job
from .._contracts.errors import UserError
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..batching import length_buckets, pad
from ..chat_format import ChatFormat
from ..engine import (
    GPT,
    Batch,
    Loaded,
    adapters_of,
    check_layout,
    dist,
    export,
    forward,
    make_trainer,
    parallel_state,
    pretrained,
    row_limit,
    settings_of,
    torch,
)
from ..instructions import read_split
from ..intervals import bootstrap_mean
from ..ranking import comparisons
from ..rankings import Prepared, Ranking, prepare
from ..training import Plan, first_and_last, fit, read_log, write_jsonl
from .config import DpoConfig
from .data import microbatches
from .loss import dpo_losses

Scores = dict[str, list[float]]
"""Id of a comparison -> log-probability of each of its answers, nats."""
REFERENCE = "reference.json"


def run(run: Run) -> None:
    """Train, and write the export, log.jsonl, flight.jsonl, rejects.jsonl and metrics.json."""
    config: DpoConfig = run.config
    job.start(run, train)
    loaded = job.trained(run, run.inputs["model"])
    data = read(run, loaded)
    export(run.out, loaded, data.chat, "lm")
    write_jsonl(run.out / "rejects.jsonl", data.train.rejects + data.heldout.rejects)
    log = read_log(run.out)
    before, after = first_and_last(log, "heldout_loss")
    reference = json.loads((run.work / REFERENCE).read_text())
    scores = logprobs(loaded.model, data.heldout.rankings, data.chat.pad, config.micro_batch)
    right = [accuracy(one, scores[one.id], reference[one.id]) for one in data.heldout.rankings]
    share, low, high = bootstrap_mean(right, config.seed)
    learnt, held = (sum(len(row) for r in side.rankings for row in r.rows) for side in (data.train, data.heldout))
    run.write_metrics(
        {
            "steps": len(data.batches),
            "train_comparisons": len(data.train.rankings),
            "heldout_comparisons": len(data.heldout.rankings),
            "answers_cut": data.train.answers_cut + data.heldout.answers_cut,
            "comparisons_set_aside": len(data.train.rejects) + len(data.heldout.rejects),
            "train_loss": first_and_last(log, "loss")[1],
            "heldout_loss_before": before,
            "heldout_loss": after,
            "accuracy": share,
            "accuracy_low": low,
            "accuracy_high": high,
            # forward and backward in every epoch; the reference, forward only, over both sides
            "flops": loaded.config.flops_per_token * (config.epochs * learnt + (learnt + held) / 3),
        }
    )


def train(run: Run, rank_files: Path | None) -> None:
    """One rank's part of the training.

    Raises:
        UserError: another tokenizer than the reference's; answers cut by context ranks.
    """
    config: DpoConfig = run.config
    settings = settings_of(config, run.stage.name)
    if settings.parallel.context > 1:
        raise UserError(f"{run.stage.name}.parallel.context: an answer's log-probability needs whole rows; set it to 1")
    dtype = pretrained.TYPES[config.dtype]
    loaded = pretrained.load(run.inputs["model"], dtype=dtype)
    check_layout(settings, loaded.config, run.stage.name)
    data = read(run, loaded)
    made = data.train
    run.log(f"{len(made.rankings)} comparisons, {made.answers_cut} answers cut, {len(made.rejects)} set aside")
    other = run.inputs.get("reference")
    reference = _reference(run, pretrained.load(other, dtype=dtype) if other else loaded, loaded, data)
    held = sorted(data.heldout.rankings, key=lambda one: one.longest)

    multiple = 8 * settings.parallel.position_parts

    def collate(rankings: Sequence[Ranking]) -> list[dict]:
        return microbatches(rankings, reference, config.micro_batch, data.chat.pad, multiple)

    plan = Plan(
        data.batches,
        [sum(map(len, one.rows)) for one in data.train.rankings],
        lambda numbers: collate([data.train.rankings[n] for n in numbers]),
        objective(config),
        len(held),
        lambda numbers: collate([held[n] for n in numbers]),
    )
    adapters = adapters_of(config, run.stage.name)
    trainer = make_trainer(loaded.model, config.optimizer, len(plan.batches), adapters, config.seed)
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
    config: DpoConfig = run.config
    chat = ChatFormat(loaded.tokenizer)
    limit = row_limit(config.max_length, loaded)
    train, heldout = (prepare(read_split(run.inputs["preferences"], s), chat, limit) for s in ("train", "heldout"))
    if not train.rankings or not heldout.rankings:
        raise UserError("no comparison to train on or none held out; give more preferences or raise max_length")
    lengths = [one.longest for one in train.rankings]
    epochs = [length_buckets(lengths, config.batch_size, config.seed, epoch) for epoch in range(config.epochs)]
    return Data(train, heldout, [batch for epoch in epochs for batch in epoch], chat)


def objective(config: DpoConfig):
    """Loss function for the trainer: sum over prompts of their mean loss a pair; sums of accuracy and margin."""

    def loss(nll: Any, batch: Batch) -> tuple[Any, Any, dict[str, Any]]:
        policy = -(nll.double() * batch["loss_mask"]).sum(1)
        prompt, reference = batch["prompt"], batch["reference"]
        winner, loser = comparisons(prompt, batch["ranks"])
        losses = dpo_losses(
            policy[winner], policy[loser], reference[winner], reference[loser], config.beta, config.label_smoothing
        )
        implicit = config.beta * (policy - reference).detach()
        gaps = implicit[winner] - implicit[loser]
        of = prompt[winner]
        weight = 1 / of.bincount(minlength=int(prompt.max()) + 1).to(losses.dtype)[of]
        right = (gaps > 0).double() + 0.5 * (gaps == 0).double()
        return (
            (weight * losses).sum().float(),
            of.unique().numel() * torch.ones((), dtype=torch.int, device=nll.device),
            {
                "accuracy": (weight * right).sum(),
                "margin": (weight * gaps).sum(),
                "chosen": (weight * implicit[winner]).sum(),
                "rejected": (weight * implicit[loser]).sum(),
            },
        )

    return loss


@torch.no_grad()
def logprobs(model: GPT, rankings: Sequence[Ranking], filler: int, size: int) -> Scores:
    """Log-probability of each answer given its prompt, by the forward pass that training uses.

    Args:
        size: rows in one forward pass.
    """
    rows = [(one, n) for one in rankings for n in range(len(one.rows))]
    rows.sort(key=lambda row: len(row[0].rows[row[1]]))
    found: Scores = {one.id: [0.0] * len(one.rows) for one in rankings}
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        given = forward.token_logprobs(model, pad([one.rows[n] for one, n in part], filler)).double().cpu()
        for line, (one, n) in zip(given, part, strict=True):
            found[one.id][n] = float(line[one.prompt_tokens - 1 : len(one.rows[n]) - 1].sum())
    return found


def accuracy(one: Ranking, policy: Sequence[float], reference: Sequence[float]) -> float:
    """Share of a prompt's pairs that log(policy / reference), the implicit reward, orders as labelled; ties half."""
    gain = [p - r for p, r in zip(policy, reference, strict=True)]
    return sum((gain[a] > gain[b]) + 0.5 * (gain[a] == gain[b]) for a, b in one.pairs) / len(one.pairs)


def _reference(run: Run, reference: Loaded, policy: Loaded, data: Data) -> Scores:
    """The reference's log-probabilities: each data rank computes its share; kept for when the run goes on."""
    path = run.work / REFERENCE
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise UserError(f"{run.inputs['reference']}: another tokenizer than the model's; give the model it came from")
    box: list[Scores | None] = [json.loads(path.read_text()) if path.exists() and dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    if box[0] is not None:
        return box[0]
    everything = data.train.rankings + data.heldout.rankings
    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    mine = logprobs(reference.model, everything[rank::ranks], data.chat.pad, run.config.micro_batch)
    shares: list[Scores] = [{}] * dist.get_world_size()
    dist.all_gather_object(shares, mine)
    found = {name: scores for share in shares for name, scores in share.items()}
    if dist.get_rank() == 0:
        write_atomic(path, json.dumps(found))
    dist.barrier()
    return found
