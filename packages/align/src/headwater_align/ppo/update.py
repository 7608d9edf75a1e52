"""Updates of policy and value function on a batch of experience: minibatches, clipped losses, pre-training mixed in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .. import ranks
from ..config import PpoConfig
from ..engine import Batch, Loss, torch
from ..sampling import draw_seed
from .estimators import kl_estimate
from .experience import Actors, Experience, LogRow, minibatches
from .guard import Guard
from .losses import policy_losses, value_losses
from .rollouts import micro_batches, padded

PER_TOKEN = ("logprobs", "values", "advantages", "returns")


def update(actors: Actors, experience: Experience, config: PpoConfig, seed: int, guard: Guard | None = None) -> LogRow:
    """`inner_epochs` passes over the batch in minibatches, each a step of value function and policy; collective.

    Args:
        seed: the one that `evaluate_episodes` had.
        guard: asked before each update; None: all are made.

    Returns:
        means over the updates, `ratio_max` the largest; `updates`: how many the policy made.

    Raises:
        GoBack, UserError: what the guard raises.
    """
    batch = len(experience.mask)
    values: list[LogRow] = []
    policies: list[LogRow] = []
    far = False
    for epoch in range(config.inner_epochs):
        for number, rows in enumerate(minibatches(config, batch, seed, epoch)):
            pieces = microbatches(experience, rows, config.micro_batch, actors.chat.pad)
            values += _value_step(actors, pieces, config, guard)
            if not far:
                ptx = _ptx_microbatches(actors, experience, rows, config, draw_seed(seed, epoch, number))
                made, far = _policy_step(actors, pieces + ptx, config, guard)
                policies += made
    figures: LogRow = {"updates": len(policies)}
    for found in (policies, values):
        figures |= {name: float(np.mean([row[name] for row in found])) for name in (found[0] if found else {})}
    if policies:
        figures["ratio_max"] = max(row["ratio_max"] for row in policies)
    return figures


def microbatches(experience: Experience, rows: Sequence[int], size: int, filler: int) -> list[dict]:
    """This data rank's micro-batches of at most `size` episodes of like length.

    Keys: tokens, labels (int64), loss_mask (bool, the sampled tokens), logprobs, values, advantages, returns (float32),
    each [rows, positions]. A rank without an episode gets one whose every token is masked, so that it keeps in step.
    """
    all_rows = experience.episodes.rows
    parts = micro_batches(rows, [len(row) for row in all_rows], size)
    made = []
    for part in parts or [list(rows[:1])]:
        tokens = padded([all_rows[r] for r in part], filler)
        mask = _cut(experience.mask, part, tokens.size(1) - 1) & bool(parts)
        piece = {"tokens": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous()}
        piece |= {name: _cut(getattr(experience, name), part, tokens.size(1) - 1) for name in PER_TOKEN}
        made.append({**piece, "loss_mask": mask})
    return made


def _cut(x: Tensor, part: Sequence[int], width: int) -> Tensor:
    """Rows of a per-token tensor at another width; 0 where it has nothing."""
    found = x[list(part), :width]
    return torch.nn.functional.pad(found, (0, width - found.size(1)))


def _value_step(actors: Actors, pieces: list[dict], config: PpoConfig, guard: Guard | None) -> list[LogRow]:
    """The figures of one update; none if the guard was against it."""
    bare = [{name: piece[name] for name in ("tokens", "loss_mask", "values", "returns")} for piece in pieces]
    made: list[LogRow] = []

    def accept(row: LogRow) -> bool:
        if guard is not None and not guard.accept("value", row):
            return False
        names = {"loss": "value_loss", "clipped": "value_clipped", "grad_norm": "value_grad_norm", "lr": "value_lr"}
        made.append({name: row[theirs] for theirs, name in names.items()})
        return True

    actors.value.step(bare, value_loss(config, actors.reward.gain, actors.reward.bias), accept)
    return made


def _policy_step(
    actors: Actors, pieces: list[dict], config: PpoConfig, guard: Guard | None
) -> tuple[list[LogRow], bool]:
    """The figures of one update, none if it was left out; and whether that was since the policy had moved too far."""
    largest = Largest()
    made: list[LogRow] = []
    far = False

    def accept(row: LogRow) -> bool:
        nonlocal far
        far = config.stop_update_kl is not None and row["update_kl"] > config.stop_update_kl
        if far or (guard is not None and not guard.accept("policy", row)):
            return False
        names = ["policy_loss", "clipped", "update_kl", "ratio", *(["ptx_loss"] if actors.pretraining else [])]
        own = {"policy_grad_norm": row["grad_norm"], "policy_lr": row["lr"], "ratio_max": ranks.largest(largest.value)}
        made.append({**{name: row[name] for name in names}, **own})
        return True

    actors.policy.step(pieces, policy_loss(config, largest), accept)
    return made, far


class Largest:
    """The largest number seen; a trainer's metrics are sums."""

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, x: Tensor) -> None:
        """Look at all of x."""
        self.value = max(self.value, x.max().item())


def _ptx_microbatches(
    actors: Actors, experience: Experience, rows: Sequence[int], config: PpoConfig, seed: int
) -> list[dict]:
    """This rank's share of pre-training text, `ptx_ratio` rows an episode; [] without ptx.

    The trainer divides the sum of all losses by the number of sampled tokens, so the sum over pre-training tokens is
    multiplied by ptx_coef x sampled tokens / pre-training tokens: the mean loss a token counts `ptx_coef`.
    """
    if actors.pretraining is None:
        return []
    number = max(1, round(config.ptx_ratio * len(rows)))
    drawn = actors.pretraining.draw(number, seed)
    sampled = experience.mask[list(rows)].sum()
    weight = config.ptx_coef * sampled / (number * (drawn.size(1) - 1))
    mine = ranks.share(range(number))
    made = []
    for start in range(0, len(mine), config.micro_batch):
        tokens = drawn[mine[start : start + config.micro_batch]]
        made.append({"tokens": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous(), "ptx_weight": weight})
    return made


def policy_loss(config: PpoConfig, largest: Largest) -> Loss:
    """Loss function of the policy's trainer: the clipped surrogate, or the weighted pre-training loss (InstructGPT,
    eq. 2)."""

    def loss(nll: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict]:
        none = torch.zeros((), device=nll.device)
        names = ("policy_loss", "clipped", "update_kl", "ratio")
        if "ptx_weight" in batch:
            size = torch.tensor(nll.numel(), device=nll.device)
            own = {name: (none, none) for name in names}
            return batch["ptx_weight"] * nll.sum(), none.int(), {**own, "ptx_loss": (nll.sum(), size)}
        mask, old = batch["loss_mask"], batch["logprobs"]
        losses, clipped = policy_losses(-nll, old, batch["advantages"], config.clip)
        ratio = torch.where(mask, (-nll - old).exp(), 0).detach()
        largest.add(ratio)
        total, count = torch.where(mask, losses, 0).sum(), mask.sum()
        return total, count, {
            "policy_loss": total,
            "clipped": (clipped & mask).sum(),
            "update_kl": torch.where(mask, kl_estimate(old, -nll, "k3"), 0).sum(),
            "ratio": ratio.sum(),
            "ptx_loss": (none, none),
        }  # fmt: skip

    return loss


def value_loss(config: PpoConfig, gain: float, bias: float) -> Loss:
    """Loss function of the value's trainer, in the units of the normalised reward."""

    def loss(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict]:
        mask = batch["loss_mask"]
        values = gain * output + bias
        losses, clipped = value_losses(values, batch["values"], batch["returns"], config.value_clip)
        return torch.where(mask, losses, 0).sum(), mask.sum(), {"clipped": (clipped & mask).sum()}

    return loss
