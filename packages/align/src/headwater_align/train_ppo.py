"""Stage `ppo`: reinforcement learning from the reward model (InstructGPT, arXiv:2203.02155, section 3.5 and C.4).

Four models: the policy, which starts as the SFT model; the reference, which stays it; the reward model; and the value
function, which starts as the reward model. One step: sample answers, score them, estimate advantages, and update
policy and value function on minibatches; with `ptx_coef` a pre-training loss is mixed into the policy's (PPO-ptx).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import ppo
from ._contracts.errors import UserError
from ._contracts.stage import Run
from .batching import pad
from .chat_format import ChatFormat
from .comparison import compare
from .config import PpoConfig
from .conversation import prompt_key
from .engine import Loaded, Trainer, export, make_trainer, pretrained, runtime
from .instructions import read_split
from .pretraining_rows import PretrainingRows
from .progress import LogRow, Progress, finite
from .reward_model import RewardModel
from .rollouts import Episodes, draw_seed, logprobs, prompt_numbers, sample, state_values
from .training import write_jsonl


@dataclass
class Actors:
    """The models of a run."""

    policy: Trainer
    value: Trainer
    reference: Loaded
    reward: RewardModel
    chat: ChatFormat
    pretraining: PretrainingRows | None


@dataclass(frozen=True)
class Experience:
    """A batch of episodes with all that the update needs; per-token tensors float32 [B, T - 1]."""

    episodes: Episodes
    mask: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


def run(run: Run) -> None:
    """Train, compare with SFT on held-out prompts, and write the export, log.jsonl, samples.jsonl and metrics.json."""
    config: PpoConfig = run.config
    runtime.initialize(seed=config.seed)
    actors, start = _cast(run)
    prompts, too_long = prompts_of(run.inputs["instructions"], "train", actors.chat, config.max_prompt_length)
    heldout, held_too_long = prompts_of(run.inputs["instructions"], "heldout", actors.chat, config.max_prompt_length)
    if not prompts or not heldout:
        raise UserError("no prompt to train on or none held out; raise max_prompt_length or give more instructions")
    run.log(f"{len(prompts)} prompts, {too_long} longer than {config.max_prompt_length} tokens left out")

    progress = Progress(run, {"policy": actors.policy, "value": actors.value})
    done, log, state = progress.load()
    kl_coef = state.get("kl_coef", config.kl_coef)
    for step in range(done, config.steps):
        numbers = prompt_numbers(len(prompts), config.batch_size, step, config.seed)
        seed = draw_seed(config.seed, step)
        episodes = sample(
            actors.policy.module, [prompts[n] for n in numbers], actors.chat, config.max_response_length, seed,
            config.batch_size,
        )  # fmt: skip
        experience, figures = evaluate_episodes(actors, episodes, config, kl_coef)
        figures |= update(actors, experience, config, seed)
        log.append(finite({"step": step + 1, "kl_coef": kl_coef, **figures}))
        if config.kl_target is not None:
            kl_coef = ppo.adapt_kl_coef(kl_coef, figures["kl"], config.kl_target, config.kl_horizon, len(numbers))
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            progress.save(step + 1, log, {"kl_coef": kl_coef})
        if (step + 1) % config.log_every == 0:
            run.progress(f"step {step + 1}/{config.steps}, reward {figures['reward']:.3f}, kl {figures['kl']:.3f}")

    export(run.out, replace(start, model=actors.policy.module), actors.chat, "lm")
    write_jsonl(run.out / "log.jsonl", log)
    chosen = heldout[: config.heldout_prompts]
    models = {"sft": actors.reference.model, "ppo": actors.policy.module}
    metrics, samples = compare(models, chosen, actors.reward, actors.chat, config)
    run.log("held-out reward: SFT {sft_reward:.3f}, PPO {ppo_reward:.3f}; KL {ppo_kl:.2f} nats".format(**metrics))
    write_jsonl(run.out / "samples.jsonl", samples)
    run.write_metrics(
        {
            "steps": config.steps,
            "episodes": config.steps * config.batch_size,
            "prompts": len(prompts),
            "prompts_too_long": too_long + held_too_long,
            "train_reward_first": log[0]["reward"],
            "train_reward_last": log[-1]["reward"],
            **metrics,
        }
    )


def _cast(run: Run) -> tuple[Actors, Loaded]:
    """Load the models; also the loaded policy, whose folder the export takes its tokenizer from."""
    config: PpoConfig = run.config
    dtype = pretrained.TYPES[config.dtype]
    policy, reference = (pretrained.load(run.inputs["policy"], dtype=dtype) for _ in range(2))
    reward = RewardModel.load(run.inputs["reward"], dtype)
    value = pretrained.load(run.inputs["reward"], dtype=dtype)
    if reward.loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise UserError(f"{run.inputs['reward']}: another tokenizer than the policy's; train it from this SFT model")
    longest = config.max_prompt_length + config.max_response_length
    for name, model in (("policy", policy), ("reward", value)):
        if longest > model.config.context:
            raise UserError(
                f"max_prompt_length + max_response_length is {longest}, above the {name} model's context of "
                f"{model.config.context}; lower one of them"
            )
    pretraining = None
    if config.ptx_coef:
        if "tokens" not in run.inputs:
            raise UserError("ptx_coef needs --in tokens=DIR, the pre-training tokens; or set ptx_coef to 0")
        pretraining = PretrainingRows(run.inputs["tokens"], config.ptx_length)
    reference.model.requires_grad_(False)
    reward.loaded.model.requires_grad_(False)
    updates = config.steps * config.inner_epochs * config.minibatches
    actors = Actors(
        policy=make_trainer(policy.model, config.policy_optimizer, updates),
        value=make_trainer(value.model, config.value_optimizer, updates),
        reference=reference,
        reward=reward,
        chat=ChatFormat(policy.tokenizer),
        pretraining=pretraining,
    )
    return actors, policy


def prompts_of(artefact: Path, side: str, chat: ChatFormat, limit: int) -> tuple[list[list[int]], int]:
    """Distinct prompts in ids, in order of id, and how many were longer than `limit` tokens.

    A prompt is a conversation up to the assistant's first answer.
    """
    asked: dict[str, list[dict]] = {}
    for record in read_split(artefact, side):
        messages = record["messages"]
        first = next(i for i, m in enumerate(messages) if m["role"] == "assistant")
        asked.setdefault(prompt_key(messages), messages[:first])
    prompts = chat.prompts(list(asked.values()))
    short = [ids for ids in prompts if len(ids) <= limit]
    return short, len(prompts) - len(short)


def evaluate_episodes(
    actors: Actors, episodes: Episodes, config: PpoConfig, kl_coef: float
) -> tuple[Experience, LogRow]:
    """Score episodes, spread the reward over their tokens, and estimate advantages; with figures for the log."""
    filler, size, mask = actors.chat.pad, config.micro_batch, episodes.mask
    old = logprobs(actors.policy.module, episodes, filler, size)
    reference = logprobs(actors.reference.model, episodes, filler, size)
    values = actors.reward.gain * state_values(actors.value.module, episodes, filler, size) + actors.reward.bias
    raw = actors.reward(episodes.rows, filler, size)
    cut = ~torch.tensor(episodes.finished)
    scores = raw.clamp(-config.reward_clip, config.reward_clip) - config.missing_end_penalty * cut

    kl = ppo.kl_estimate(old, reference, config.kl_estimator)
    rewards = ppo.token_rewards(scores, kl, mask, kl_coef)
    advantages, returns = ppo.gae(rewards, values, mask, config.gamma, config.lam)
    experience = Experience(episodes, mask, old, values, ppo.whiten(advantages, mask), returns)
    residual = ppo.masked_mean((returns - values) ** 2, mask)
    spread = ppo.masked_mean((returns - ppo.masked_mean(returns, mask)) ** 2, mask)
    return experience, {
        "reward": raw.mean().item(),
        "score": scores.mean().item(),
        "kl": torch.where(mask, old - reference, 0).sum(1).mean().item(),
        "entropy": -ppo.masked_mean(old, mask).item(),
        "answer_tokens": float(np.mean(episodes.lengths)),
        "finished": float(np.mean(episodes.finished)),
        "value_explained": (1 - residual / spread.clamp(min=1e-8)).item(),
    }


def update(actors: Actors, experience: Experience, config: PpoConfig, seed: int) -> LogRow:
    """`inner_epochs` passes over the batch in minibatches, each a step of policy and value; mean figures."""
    batch = len(experience.mask)
    part = batch // config.minibatches
    figures: list[LogRow] = []
    for epoch in range(config.inner_epochs):
        order = np.random.default_rng([seed, epoch]).permutation(batch).tolist()
        for start in range(0, batch, part):
            rows = order[start : start + part]
            pieces = microbatches(experience, rows, config.micro_batch, actors.chat.pad)
            value = actors.value.step(pieces, value_loss(config, actors.reward.gain, actors.reward.bias))
            ptx = _ptx_microbatches(actors, experience, rows, config, draw_seed(seed, epoch, start))
            policy = actors.policy.step(
                [{**p, "labels": p["next"], "loss_mask": p["mask"]} for p in pieces] + ptx, policy_loss(config)
            )
            figures.append(
                {
                    "policy_loss": policy["policy_loss"],
                    "clipped": policy["clipped"],
                    "update_kl": policy["update_kl"],
                    "value_loss": value["loss"],
                    "value_clipped": value["clipped"],
                    "policy_grad_norm": policy["grad_norm"],
                    "value_grad_norm": value["grad_norm"],
                    "policy_lr": policy["lr"],
                    **({"ptx_loss": policy["ptx_loss"]} if ptx else {}),
                }
            )
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}


def microbatches(experience: Experience, rows: Sequence[int], size: int, filler: int) -> list[dict]:
    """Micro-batches of at most `size` episodes of like length, each cut to its longest.

    Keys: tokens, next (int64), mask (bool), logprobs, values, advantages, returns (float32), each [rows, positions].
    """
    all_rows = experience.episodes.rows
    order = sorted(rows, key=lambda row: len(all_rows[row]))
    made = []
    for start in range(0, len(order), size):
        part = order[start : start + size]
        tokens = pad([all_rows[r] for r in part], filler)
        piece = {"tokens": tokens[:, :-1].contiguous(), "next": tokens[:, 1:].contiguous()}
        for name in ("mask", "logprobs", "values", "advantages", "returns"):
            piece[name] = getattr(experience, name)[part, : tokens.shape[1] - 1]
        made.append(piece)
    return made


def _ptx_microbatches(
    actors: Actors, experience: Experience, rows: Sequence[int], config: PpoConfig, seed: int
) -> list[dict]:
    """One micro-batch of pre-training text with the weight that makes its mean loss count `ptx_coef`; [] without ptx.

    The trainer divides the sum of all losses by the number of sampled tokens, so the sum over pre-training tokens is
    multiplied by sampled tokens / pre-training tokens.
    """
    if actors.pretraining is None:
        return []
    tokens = actors.pretraining.draw(config.ptx_rows, seed)
    labels = tokens[:, 1:].contiguous()
    weight = config.ptx_coef * experience.mask[list(rows)].sum() / labels.numel()
    return [{"tokens": tokens[:, :-1].contiguous(), "labels": labels, "ptx_weight": weight}]


def policy_loss(config: PpoConfig):
    """Loss function of the policy's trainer: the clipped surrogate, or the weighted pre-training loss (eq. 2)."""

    def loss(nll: Tensor, batch: dict) -> tuple[Tensor, Tensor, dict]:
        none = torch.zeros((), device=nll.device)
        if "ptx_weight" in batch:
            size = torch.tensor(nll.numel(), device=nll.device)
            own = {"policy_loss": (none, none), "clipped": (none, none), "update_kl": (none, none)}
            return batch["ptx_weight"] * nll.sum(), none.int(), {**own, "ptx_loss": (nll.sum(), size)}
        mask, old = batch["mask"], batch["logprobs"]
        losses, clipped = ppo.policy_losses(-nll, old, batch["advantages"], config.clip)
        total, count = torch.where(mask, losses, 0).sum(), mask.sum()
        return total, count, {
            "policy_loss": total,
            "clipped": (clipped & mask).sum(),
            "update_kl": torch.where(mask, ppo.kl_estimate(old, -nll, "k3"), 0).sum(),
            "ptx_loss": (none, none),
        }  # fmt: skip

    return loss


def value_loss(config: PpoConfig, gain: float, bias: float):
    """Loss function of the value's trainer, in the units of the normalised reward."""

    def loss(output: Tensor, batch: dict) -> tuple[Tensor, Tensor, dict]:
        mask = batch["mask"]
        values = gain * output + bias
        losses, clipped = ppo.value_losses(values, batch["values"], batch["returns"], config.value_clip)
        return torch.where(mask, losses, 0).sum(), mask.sum(), {"clipped": (clipped & mask).sum()}

    return loss
