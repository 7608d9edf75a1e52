"""Stage `dpo`: the policy learns from comparisons directly (Rafailov et al. 2023, arXiv:2305.18290).

The reference's log-probabilities are computed once, before training, so that no second model is held. A prompt with K
answers gives all pairs that differ in rank, and counts as one, as in the reward model's loss.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .. import job, jsonl, ranks
from .._contracts.errors import UserError
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..batching import pad
from ..engine import (
    GPT,
    Batch,
    Loaded,
    Loss,
    export,
    forward,
    pretrained,
    settings_of,
    torch,
)
from ..intervals import bootstrap_mean
from ..ranking_loss import comparisons
from ..rankings import Comparisons, Ranking, read
from ..training import Plan, first_and_last, learn, read_log
from .config import DpoConfig
from .data import microbatches
from .loss import dpo_losses

Scores = dict[str, list[float]]
"""Id of a comparison -> log-probability of each of its answers, nats."""
REFERENCE = "reference.json"


def run(run: Run) -> None:
    """Train, and write the export, log.jsonl, flight.jsonl, rejects.jsonl and metrics.json."""
    config: DpoConfig = run.config
    job.start(run, train, "model", whole_rows="an answer's log-probability needs whole rows")
    loaded = job.trained(run, run.inputs["model"])
    data = read(run, loaded)
    export(run.out, loaded, data.chat, "lm")
    jsonl.write(run.out / "rejects.jsonl", data.train.rejects + data.heldout.rejects)
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
    dtype = pretrained.TYPES[config.dtype]
    loaded = pretrained.load(run.inputs["model"], dtype=dtype)
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
    learn(run, settings, loaded, plan, rank_files)


def objective(config: DpoConfig) -> Loss:
    """Loss function for the trainer: sum over prompts of their mean loss a pair; sums of accuracy and margin."""

    def loss(nll: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
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

    As there, the output layer runs at the answer's places only.

    Args:
        size: rows in one forward pass.
    """
    rows = [(one, n) for one in rankings for n in range(len(one.rows))]
    rows.sort(key=lambda row: len(row[0].rows[row[1]]))
    found: Scores = {one.id: [0.0] * len(one.rows) for one in rankings}
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        said = pad([one.said[n] for one, n in part], False)
        given = forward.token_logprobs(model, pad([one.rows[n] for one, n in part], filler), wanted=said)
        for total, (one, n) in zip(given.double().sum(1).tolist(), part, strict=True):
            found[one.id][n] = total
    return found


def accuracy(one: Ranking, policy: Sequence[float], reference: Sequence[float]) -> float:
    """Share of a prompt's pairs that log(policy / reference), the implicit reward, orders as labelled; ties half."""
    gain = [p - r for p, r in zip(policy, reference, strict=True)]
    return sum((gain[a] > gain[b]) + 0.5 * (gain[a] == gain[b]) for a, b in one.pairs) / len(one.pairs)


def _reference(run: Run, reference: Loaded, policy: Loaded, data: Comparisons) -> Scores:
    """The reference's log-probabilities: each data rank computes its share; kept for when the run goes on."""
    path = run.work / REFERENCE
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise UserError(f"{run.inputs['reference']}: another tokenizer than the model's; give the model it came from")
    kept: Scores | None = ranks.from_first(json.loads(path.read_text()) if path.exists() else None)
    if kept is not None:
        return kept
    everything = ranks.share(data.train.rankings + data.heldout.rankings)
    mine = logprobs(reference.model, everything, data.chat.pad, run.config.micro_batch)
    found = {name: scores for share in ranks.gather(mine) for name, scores in share.items()}
    if ranks.is_first():
        write_atomic(path, json.dumps(found))
    ranks.barrier()
    return found
