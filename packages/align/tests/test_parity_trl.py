"""Losses and estimators beside TRL's own code, on the same tensors.

The losses of SFT, reward model and DPO are what its trainers' methods answer. Those of PPO stand in the body of
`PPOTrainer.train`, so its lines are cut out between two that have to be there, and run as they are. TRL 1.12 is the
last release that has all four.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from collections import defaultdict
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl import DPOTrainer, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.ppo import ppo_trainer

from headwater_align import ppo
from headwater_align.chat_format import Rendered
from headwater_align.dpo.loss import dpo_losses
from headwater_align.ranking_loss import ranking_losses

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


def trainer_stub(**fields: Any) -> SimpleNamespace:
    """What a trainer's loss method reads of its trainer, beside its own settings."""

    def same(x: Tensor) -> Tensor:
        return x

    accelerator = SimpleNamespace(gather=same, gather_for_metrics=same, device="cpu")
    own = SimpleNamespace(training=False)
    return SimpleNamespace(model=own, accelerator=accelerator, _metrics={"eval": defaultdict(list)}, **fields)


def trl_ppo(begin: str, end: str, **names: Any) -> dict[str, Any]:
    """Run the lines of TRL's training loop from the one with `begin` up to the one with `end`, and give its names."""
    lines = inspect.getsource(ppo_trainer.PPOTrainer.train).splitlines()
    first = next(number for number, line in enumerate(lines) if begin in line)
    last = next(number for number in range(first, len(lines)) if end in lines[number])
    exec(textwrap.dedent("\n".join(lines[first:last])), vars(ppo_trainer), names)
    return names


# ---- SFT, reward model, DPO


def test_the_loss_of_sft_is_that_of_trls_trainer(base_model, tmp_path):
    from datasets import Dataset
    from transformers import AutoTokenizer

    from headwater_align import sft
    from headwater_align.engine import next_token_loss, pretrained, runtime

    draw = torch.Generator().manual_seed(0)
    rows = []
    for prompt, answer in ((5, 7), (20, 3), (2, 30)):
        ids = torch.randint(0, 256, (prompt + answer,), generator=draw).tolist()
        rows.append(Rendered(ids, [False] * prompt + [True] * answer))
    arguments = SFTConfig(
        output_dir=str(tmp_path), completion_only_loss=True, use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to=[], shuffle_dataset=False,
    )  # fmt: skip
    data = Dataset.from_list([{"input_ids": r.ids, "completion_mask": list(map(int, r.supervised))} for r in rows])
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    theirs = SFTTrainer(str(base_model), args=arguments, train_dataset=data, processing_class=tokenizer)
    batch = theirs.data_collator(list(theirs.train_dataset))
    runtime.initialize(seed=1)
    model = pretrained.load(base_model).model
    (own,) = sft.microbatches(rows, len(rows), filler=0)
    total, count, _ = next_token_loss(model(own["tokens"], labels=own["labels"]), own)
    with torch.no_grad():
        torch.testing.assert_close(total / count, theirs.compute_loss(theirs.model, batch), **CLOSE)


def trl_reward_loss(chosen: Tensor, rejected: Tensor, **inputs: Tensor) -> Tensor:
    settings = SimpleNamespace(center_rewards_coefficient=None)
    scores = torch.cat([chosen, rejected])[:, None]
    stub = trainer_stub(args=settings, _total_train_tokens=0)
    return RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=scores), dict(inputs))


@SEEDS
@pytest.mark.parametrize("with_margin", [False, True])
def test_the_loss_of_pairs_is_that_of_trls_trainer(seed, with_margin):
    draw = torch.Generator().manual_seed(seed)
    chosen, rejected = (torch.randn(6, generator=draw) * 3 for _ in range(2))
    margin = {"margin": torch.rand(6, generator=draw)} if with_margin else {}
    pairs = torch.arange(6).repeat(2)
    ranks = torch.ones(12, dtype=torch.long).index_fill(0, torch.arange(6, 12), 2)
    own = ranking_losses(torch.cat([chosen, rejected]), pairs, ranks, margin.get("margin"))
    torch.testing.assert_close(own.mean(), trl_reward_loss(chosen, rejected, **margin), **CLOSE)


@SEEDS
def test_the_loss_of_k_ranked_answers_is_the_mean_of_trls_over_their_pairs(seed):
    draw = torch.Generator().manual_seed(seed)
    rewards = torch.randn(5, 4, generator=draw)
    own = ranking_losses(rewards.flatten(), torch.arange(5).repeat_interleave(4), torch.arange(1, 5).repeat(5))
    better, worse = map(list, zip(*combinations(range(4), 2), strict=True))
    theirs = [trl_reward_loss(row[better], row[worse]) for row in rewards]
    torch.testing.assert_close(own, torch.stack(theirs), **CLOSE)


def trl_dpo_loss(logits: Tensor, inputs: dict[str, Tensor], beta: float, loss: str, smoothing: float) -> Tensor:
    stub = trainer_stub(
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl",
        loss_types=[loss], loss_weights=[1.0], beta=beta, label_smoothing=smoothing, use_weighting=False,
        _total_train_tokens=0,
    )  # fmt: skip
    return DPOTrainer._compute_loss(stub, lambda **_: SimpleNamespace(logits=logits), inputs, False)


@SEEDS
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_dpo_is_that_of_trls_trainer(seed, smoothing):
    """Where some labels are wrong: TRL has that loss as "aot", whose sorting does nothing to a single pair."""
    draw = torch.Generator().manual_seed(seed)
    pairs, size, beta = 4, 9, 0.3
    logits = torch.randn(2 * pairs, size, 11, generator=draw) * 2
    ids = torch.randint(0, 11, (2 * pairs, size), generator=draw)
    mask = (torch.arange(size) >= torch.randint(1, 7, (2 * pairs, 1), generator=draw)).long()
    reference = torch.randn(2, pairs, generator=draw) * 5 - 15
    each = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    chosen, rejected = (each * mask[:, 1:]).sum(1).chunk(2)
    own = dpo_losses(chosen, rejected, *reference, beta, smoothing)
    theirs = []
    for pair in range(pairs):
        rows = [pair, pairs + pair]
        inputs = {
            "input_ids": ids[rows], "completion_mask": mask[rows], "attention_mask": torch.ones(2, size),
            "ref_chosen_logps": reference[0, pair : pair + 1], "ref_rejected_logps": reference[1, pair : pair + 1],
        }  # fmt: skip
        theirs.append(trl_dpo_loss(logits[rows], inputs, beta, "aot" if smoothing else "sigmoid", smoothing))
    torch.testing.assert_close(own, torch.stack(theirs), **CLOSE)


# ---- PPO


@pytest.fixture(params=[0, 1, 2])
def batch(request) -> dict[str, Any]:
    """Episodes as TRL's loop has them once its step 3 is over: of unlike length, padded on the right.

    TRL gives the score one place after the last token, where there is room, so one place more has a value: that is
    `seen`. Ours gives it to the last token; `seen` as a mask makes the two the same task.
    """
    draw = torch.Generator().manual_seed(request.param)
    rows, size = 5, 8
    lengths = torch.tensor([8, 3, 1, 7, 5])[torch.randperm(rows, generator=draw)]
    places = torch.arange(size).expand(rows, size)
    sampled, seen = places < lengths[:, None], places <= lengths[:, None]
    old, reference = (-torch.rand(rows, size, generator=draw) * 4 for _ in range(2))
    filler = ppo_trainer.INVALID_LOGPROB
    return {
        "old": old.where(sampled, filler),
        "reference": reference.where(sampled, filler),
        "values": torch.randn(rows, size, generator=draw).where(seen, 0.0),
        "scores": torch.randn(rows, generator=draw),
        "sequence_lengths": lengths - 1,
        "sampled": sampled,
        "seen": seen,
        "draw": draw,
    }


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_rewards_advantages_and_returns_are_those_of_trls_loop(batch, estimator):
    args = SimpleNamespace(kl_estimator=estimator, kl_coef=0.05, gamma=0.97, lam=0.95)
    theirs = trl_ppo(
        "# Formula used by", "# 5. whiten rewards", args=args, logprobs=batch["old"], scores=batch["scores"],
        ref_logprobs=batch["reference"], sequence_lengths=batch["sequence_lengths"],
        sequence_lengths_p1=batch["sequence_lengths"] + 1,
    )  # fmt: skip
    kl = ppo.kl_estimate(batch["old"], batch["reference"], estimator)
    torch.testing.assert_close(kl, theirs["kl"], **CLOSE)
    rewards = ppo.token_rewards(batch["scores"], kl, batch["seen"], args.kl_coef)
    torch.testing.assert_close(rewards, theirs["rewards"], **CLOSE)

    theirs = trl_ppo(
        "lastgaelam = 0", "empty_cache()", args=args, responses=batch["old"], rewards=theirs["rewards"],
        values=batch["values"], padding_mask=~batch["sampled"],
    )  # fmt: skip
    advantages, returns = ppo.gae(rewards, batch["values"], batch["seen"], args.gamma, args.lam)
    torch.testing.assert_close(returns, theirs["returns"], **CLOSE)
    # TRL whitens with the sample's variance (n - 1), lm-human-preferences and ours with the population's (n).
    count = batch["sampled"].sum().item()
    whitened = ppo.whiten(advantages, batch["sampled"]) * math.sqrt((count - 1) / count)
    torch.testing.assert_close(whitened, theirs["advantages"], **CLOSE)


def test_policy_and_value_loss_and_their_gradients_are_those_of_trls_loop(batch):
    draw = batch["draw"]
    shape = batch["old"].shape
    fresh = (batch["old"] + torch.randn(shape, generator=draw) * 0.4).where(batch["sampled"], batch["old"])
    moved = (batch["values"] + torch.randn(shape, generator=draw) * 0.4).where(batch["seen"], 0.0)
    advantages, returns = (torch.randn(shape, generator=draw) for _ in range(2))
    grown = [[x.clone().requires_grad_() for x in (fresh, moved)] for _ in range(2)]
    theirs = trl_ppo(
        "vpredclipped = torch.clamp(", "accelerator.backward(loss)", mb_values=batch["values"], mb_return=returns,
        args=SimpleNamespace(cliprange=0.2, cliprange_value=0.2, vf_coef=1.0), mb_advantage=advantages,
        mb_logprobs=batch["old"], new_logprobs=grown[0][0], vpred=grown[0][1], micro_batch_inds=slice(None),
        padding_mask=~batch["sampled"], padding_mask_p1=~batch["seen"],
    )  # fmt: skip
    losses, clipped = ppo.policy_losses(grown[1][0], batch["old"], advantages, 0.2)
    policy = ppo.masked_mean(losses, batch["sampled"])
    losses, value_clipped = ppo.value_losses(grown[1][1], batch["values"], returns, 0.2)
    value = ppo.masked_mean(losses, batch["seen"])
    torch.testing.assert_close(policy, theirs["pg_loss"], **CLOSE)
    torch.testing.assert_close(value, theirs["vf_loss"], **CLOSE)
    share = ppo.masked_mean(value_clipped.float(), batch["seen"])
    torch.testing.assert_close(share, theirs["vf_clipfrac"], **CLOSE)
    assert clipped[batch["sampled"]].any() and value_clipped[batch["seen"]].any()
    theirs["loss"].backward()
    (policy + value).backward()
    for own, other in zip(grown[1], grown[0], strict=True):
        torch.testing.assert_close(own.grad, other.grad, **CLOSE)
