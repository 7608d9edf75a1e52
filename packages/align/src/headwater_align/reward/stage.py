"""Stage `reward`: a reward model from rankings (InstructGPT, arXiv:2203.02155, section 3.5, eq. 1).

It starts from the SFT model with a scalar head of zeros, so at first every answer is as good as every other; or, in a
later round, from an earlier reward model, head and all. Its scores are then shifted and scaled (normalise.py), and
measured on held-out comparisons (judging.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .. import job, jsonl
from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..config import RewardConfig
from ..engine import (
    Batch,
    Loaded,
    Loss,
    export,
    pretrained,
    settings_of,
    torch,
)
from ..instructions import read_split
from ..ranking_loss import comparisons, prompt_means, ranking_losses
from ..rankings import Comparisons, Ranking, read
from ..reward_model import NORMALISATION, last_values
from ..training import Plan, first_and_last, learn, read_log
from .data import collate
from .judging import judge
from .normalise import demonstrations, normalisation

BINS = 10
"""Of the reliability table."""


def run(run: Run) -> None:
    """Train, normalise, measure; write the export, reward.json, calibration.csv, log.jsonl, rejects.jsonl, metrics."""
    config: RewardConfig = run.config
    job.start(run, train, "model", whole_rows="the reward stands at a row's end")
    loaded = job.trained(run, beginning(run), head="scalar")
    data = read(run, loaded)
    export(run.out, loaded, data.chat, "scalar")
    scale = set_scale(run, loaded, data)
    write_atomic(run.out / NORMALISATION, canonical_json(scale))
    held = data.heldout.rankings
    names = [ranking.id for ranking in held for _ in ranking.rows]
    raw = score(loaded, names, [row for ranking in held for row in ranking.rows], data.chat.pad, config.micro_batch)
    figures, calibration = judge(data.train.rankings, held, raw.double().numpy(), BINS, config.seed)
    write_atomic(run.out / "calibration.csv", calibration.csv())
    jsonl.write(run.out / "rejects.jsonl", data.train.rejects + data.heldout.rejects)
    log = read_log(run.out)
    both = (data.train, data.heldout)
    run.write_metrics(
        {
            "steps": len(data.batches),
            "train_comparisons": len(data.train.rankings),
            "train_pairs": sum(len(ranking.pairs) for ranking in data.train.rankings),
            "heldout_comparisons": len(held),
            "heldout_pairs": sum(len(ranking.pairs) for ranking in held),
            "answers_cut": sum(side.answers_cut for side in both),
            "answers_merged": sum(side.answers_merged for side in both),
            "comparisons_set_aside": sum(len(side.rejects) for side in both),
            "train_loss": first_and_last(log, "loss")[1],
            "heldout_loss": first_and_last(log, "heldout_loss")[1],
            "gain": scale["gain"],
            "bias": scale["bias"],
            **figures,
        }
    )


def beginning(run: Run) -> Path:
    """The folder that training starts from: the SFT model, or the reward model of an earlier round.

    Raises:
        UserError: `start` is no reward model, or of another shape or tokenizer than `model`.
    """
    if "start" not in run.inputs:
        return run.inputs["model"]
    model, start = run.inputs["model"], run.inputs["start"]
    shape, head = pretrained.read_config(start)
    if head != "scalar":
        raise UserError(f"{start}: a language model, no reward model; give the output of `headwater-align reward`")
    if shape != pretrained.read_config(model)[0].model_copy(update={"tie_embeddings": shape.tie_embeddings}):
        raise UserError(
            f"{start}: a model of another shape than {model}; leave `start` out, or name that round's model"
        )
    if pretrained.read_tokenizer(start).to_str() != pretrained.read_tokenizer(model).to_str():
        raise UserError(f"{start}: another tokenizer than {model} has; leave `start` out, or name that round's model")
    return start


def train(run: Run, rank_files: Path | None) -> None:
    """One rank's part of the training."""
    config: RewardConfig = run.config
    settings = settings_of(config, run.stage.name)
    dtype = pretrained.TYPES[config.dtype]
    loaded = pretrained.load(beginning(run), head="scalar", dtype=dtype, dropout=config.dropout)
    data = read(run, loaded)
    for side, made in (("train", data.train), ("held out", data.heldout)):
        run.log(
            f"{side}: {len(made.rankings)} comparisons, {sum(len(r.pairs) for r in made.rankings)} pairs, "
            f"{made.answers_cut} answers cut at {data.limit} tokens, {len(made.rejects)} comparisons set aside"
        )
    multiple = math.lcm(8, settings.parallel.position_parts)
    held = sorted(data.heldout.rankings, key=lambda ranking: ranking.longest)
    plan = Plan(
        data.batches,
        [sum(map(len, ranking.rows)) for ranking in data.train.rankings],
        collate(data.train.rankings, data.chat.pad, config.micro_batch, multiple),
        objective(config.margin, config.tie_threshold),
        len(held),
        collate(held, data.chat.pad, config.micro_batch, multiple),
    )
    learn(run, settings, loaded, plan, rank_files)


def objective(margin: float, tie_threshold: float) -> Loss:
    """Loss function for the trainer: the sum over prompts of `ranking_losses`, the number of prompts, and metrics.

    Metrics: accuracy and margin (reward of the better less the worse), each prompt's mean over its pairs.

    Args:
        margin: nats a unit of a prompt's strength.
    """

    def loss(values: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        rewards = values.gather(1, batch["last"][:, None])[:, 0]
        prompt, ranks = batch["prompt"], batch["ranks"]
        margins = margin * batch["strength"] if margin else None
        losses = ranking_losses(rewards, prompt, ranks, margins, tie_threshold)
        winner, loser = comparisons(prompt, ranks)
        gaps = (rewards[winner] - rewards[loser]).detach()
        right = (gaps > 0).float() + 0.5 * (gaps == 0).float()
        owner, count = prompt[winner], len(losses)
        shown = {"accuracy": prompt_means(right, owner, count), "margin": prompt_means(gaps, owner, count)}
        return losses.sum(), torch.tensor(count, device=values.device), {k: v.sum() for k, v in shown.items()}

    return loss


def score(loaded: Loaded, names: Sequence[str], rows: Sequence[Sequence[int]], filler: int, size: int) -> torch.Tensor:
    """Raw rewards of rows, float32 [rows].

    Args:
        names: id of each row's record.

    Raises:
        UserError: a reward that is not finite, with the record's id.
    """
    raw = last_values(loaded.model, rows, filler, size)
    wrong = (~raw.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise UserError(
            f"record {names[wrong[0]]}: the reward is {raw[wrong[0]].item()} ({len(wrong)} of {len(rows)} are not "
            "finite); lower lr, or train in float32"
        )
    return raw


def set_scale(run: Run, loaded: Loaded, data: Comparisons) -> dict[str, float | int | str]:
    """What reward.json says: gain and bias that give reference answers mean 0 and deviation 1, and which these are."""
    config: RewardConfig = run.config
    if "instructions" in run.inputs:
        shown = read_split(run.inputs["instructions"], "train")
        names, rows = demonstrations(shown, data.chat, data.limit, config.reference_rows, config.seed)
        told = "demonstrations of the instructions, training side"
    else:
        best: list[Ranking] = data.train.rankings[: config.reference_rows]
        names, rows = [ranking.id for ranking in best], [ranking.best for ranking in best]
        told = "best answers of the training comparisons"
    gain, bias = normalisation(score(loaded, names, rows, data.chat.pad, config.micro_batch))
    return {"gain": gain, "bias": bias, "reference": f"{told}: mean 0, deviation 1", "reference_rows": len(rows)}
