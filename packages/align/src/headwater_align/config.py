"""Parameters with their unit, their default and where the default comes from: of the data stages, SFT, reward and PPO,
and what all training stages have. Those of the other stages stand beside them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ._contracts.config import Config, resolved
from .conversation import Turns
from .mixtures.config import TasksConfig


class InstructionsConfig(TasksConfig):
    """Demonstrations: which sources and tasks, how much of each in which form, what is held out."""

    sources: tuple[str, ...] = Field((), description="names of sources; empty: every source of role instructions")
    max_rows: dict[str, int] = Field(
        {}, description="source or task -> cap, conversations or examples; the lowest hashes are kept"
    )
    phrasings: int = Field(2, ge=1, le=6, description="questions made from one docstring (docstring sources only)")
    heldout_fraction: float = Field(0.1, gt=0, lt=1, description="share of distinct prompts held out")


class PreferencesConfig(Config):
    """Comparisons of answers, and such as are made from demonstrations."""

    sources: tuple[str, ...] = Field((), description="names of sources; empty: every source of role preferences")
    mismatched_sources: tuple[str, ...] = Field(
        (), description="sources of demonstrations for mismatched pairs; empty: every source of role instructions"
    )
    mismatched_per_prompt: int = Field(
        0, ge=0, le=8, description="pairs a demonstration: its answer against the answer to another prompt; 0: none"
    )
    mismatched_candidates: int = Field(
        8, ge=1, description="other answers drawn, of which the one nearest in length is taken, so length says nothing"
    )
    max_rows: dict[str, int] = Field({}, description="source of demonstrations -> cap, as in instructions")
    phrasings: int = Field(2, ge=1, le=6, description="questions made from one docstring (docstring sources only)")
    heldout_fraction: float = Field(0.1, gt=0, lt=1, description="share of distinct prompts held out")


class Optimization(Config):
    """What the training stages share."""

    lr: float = Field(gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising learning rate")
    decay: Literal["constant", "linear", "cosine"] = Field("cosine", description="learning rate after the warm-up")
    final_lr_fraction: float = Field(0.1, ge=0, le=1, description="learning rate at the end, share of the peak")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of AdamW")
    beta2: float = Field(0.98, gt=0, lt=1, description="decay of AdamW's second moment")
    clip_norm: float = Field(1.0, gt=0, description="gradients longer than this are scaled down to it")


class PpoOptimization(Optimization):
    """The same with InstructGPT's choices for PPO (appendix C.4): a constant rate after 10 of 500 steps."""

    warmup: float = Field(0.02, ge=0, lt=1, description="share of the updates with a rising learning rate")
    decay: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate after the warm-up")
    beta2: float = Field(0.95, gt=0, lt=1, description="decay of AdamW's second moment (InstructGPT, appendix C)")


ENGINE = ("parallel", "spikes", "checkpoints", "tracking", "restarts", "launch")
"""Sections of `TrainingConfig` that headwater-model defines; it need not be installed to make data."""
ASIDE = ("tracking", "restarts", "launch")
"""Those of them that are no part of a run's identity."""


class TrainingConfig(Config):
    """Fields that every training stage has. `parallel`, `lora`, `spikes`, `checkpoints`, `tracking`, `restarts` and
    `launch` are headwater-model's, as its own stages take them."""

    seed: int = Field(1, ge=0, description="seed of the order of rows, of fresh heads and of sampling")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="parameters and activations in training")
    micro_batch: int = Field(8, ge=1, description="rows in one forward pass; changes memory, not the result's meaning")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints, from which a killed run goes on")
    log_every: int = Field(1, ge=1, description="steps averaged in one row of log.jsonl")
    threads: int | None = Field(None, ge=1, description="threads a rank; what torch takes if null")
    parallel: dict[str, Any] = Field(
        {}, description="layout: tensor, pipeline, data, zero, sequence, recompute (docs/parallel.md); {}: one rank"
    )
    lora: dict[str, Any] | None = Field(
        None,
        description="train low-rank adapters in place of all weights, merged on export: {rank, alpha, dropout, "
        "targets} (docs/align-lora.md); null: all weights",
    )
    spikes: dict[str, Any] | None = Field({}, description="policy on loss spikes (docs/resilience.md); null: none")
    checkpoints: dict[str, Any] = Field({}, description="how checkpoints are written and which stay")
    tracking: dict[str, Any] = Field({"to": []}, exclude=True, description="where the run is watched; {to: [dvclive]}")
    restarts: dict[str, Any] = Field({}, exclude=True, description="when a rank dies or hangs")
    launch: dict[str, Any] = Field({}, exclude=True, description="how ranks are started: here, by srun, by torchrun")

    def everything(self) -> dict[str, Any]:
        """All values, those aside too, from which the same config can be made."""
        return {**resolved(self), **{name: getattr(self, name) for name in ASIDE}}


class SftConfig(TrainingConfig):
    """Supervised fine-tuning. InstructGPT (appendix C.1): 16 epochs, cosine decay, residual dropout of 0.2."""

    optimizer: Optimization = Field(Optimization(lr=1e-5), description="AdamW and its schedule")
    epochs: int = Field(3, ge=1, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, description="conversations a step (InstructGPT: 32)")
    max_length: int = Field(
        0, ge=0, description="tokens a row; longer ones are cut and counted; 0: the model's context"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of embeddings and residual branches (InstructGPT: 0.2)")
    pack: bool = Field(
        False, description="rows of a step share sequences of max_length, each by itself; micro_batch counts these"
    )
    evaluate_every: int = Field(0, ge=0, description="steps between held-out losses; 0: once an epoch")


class RewardConfig(TrainingConfig):
    """Reward model. InstructGPT (appendix C.2): one epoch, since more over-fits; lr 9e-6; batch of 64 prompts."""

    optimizer: Optimization = Field(Optimization(lr=9e-6), description="AdamW and its schedule")
    epochs: int = Field(1, ge=1, description="passes over the training comparisons")
    batch_size: int = Field(64, ge=1, description="prompts a step, each with all its completions (InstructGPT: 64)")
    micro_batch: int = Field(16, ge=1, description="completions in one forward pass; a prompt's own are never parted")
    max_length: int = Field(
        0, ge=0, description="tokens of prompt and answer; a longer answer is cut and counted; 0: the context"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of embeddings and residual branches")
    margin: float = Field(
        0.0, ge=0, description="nats by which the first is to be ahead of the last, a unit of strength (Llama 2, eq. 2)"
    )
    tie_threshold: float = Field(
        0.0, ge=0, description="nats; what differs by less counts as a tie (Rao and Kupper 1967); 0: ties are left out"
    )
    reference_rows: int = Field(512, ge=2, description="answers at most by which the reward is normalised")
    spikes: dict[str, Any] | None = Field(
        {"drift": 1.0},  # the engine's 0.2 ends a healthy run whose loss has come near 0 (docs/align-reward.md)
        description="policy on loss spikes (docs/resilience.md); null: none",
    )


class PpoConfig(TrainingConfig):
    """PPO. Constants are InstructGPT's (appendix C.4) or, where it names none, those of lm-human-preferences' code
    (train_policy.py), unless another source is named; docs/align-ppo.md has them side by side."""

    steps: int = Field(500, ge=1, description="rounds of sampling and updating (InstructGPT: 256k episodes / 512)")
    batch_size: int = Field(512, ge=1, description="episodes a step")
    minibatches: int = Field(8, ge=1, description="parts of a batch, each one optimiser step")
    inner_epochs: int = Field(1, ge=1, description="passes over a batch (InstructGPT 1, lm-human-preferences 4)")
    policy_optimizer: PpoOptimization = Field(
        PpoOptimization(lr=5e-6),
        description="AdamW of the policy (InstructGPT prints no rate; above 8.05e-6 all its runs at 1.3B and 6B "
        "without ptx diverged, appendix E.9)",
    )
    value_optimizer: PpoOptimization = Field(PpoOptimization(lr=9e-6), description="AdamW of the value function")
    turns: Turns = Field("last", description="answers of a conversation to ask for, each by all that comes before it")
    max_prompt_length: int = Field(256, ge=2, description="tokens; longer prompts are left out and counted")
    max_response_length: int = Field(128, ge=1, description="tokens an answer; without an end by then it is cut")
    sample_batch: int = Field(128, ge=1, description="answers that a rank samples at once; changes memory only")
    kl_coef: float = Field(0.02, ge=0, description="beta: reward lost a nat of KL from the reference")
    kl_target: float | None = Field(
        None,
        gt=0,
        description="nats an episode that the adaptive controller steers to (Ziegler: 6); null: kl_coef stays",
    )
    kl_horizon: float = Field(10_000, gt=0, description="episodes; the controller's inertia (lm-human-preferences)")
    kl_estimator: Literal["k1", "k2", "k3"] = Field("k1", description="per-token estimator of the KL in the reward")
    gamma: float = Field(1.0, gt=0, le=1, description="discount of rewards")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    clip: float = Field(0.2, gt=0, description="the policy's probability ratio is clipped to 1 +- clip")
    value_clip: float = Field(0.2, gt=0, description="a value moves at most so far from the old one for free")
    whiten_rewards: bool = Field(
        False,
        description="scale a batch's per-token rewards to variance 1 (lm-human-preferences true; here false, since the "
        "value function starts in the reward's own units)",
    )
    normalise_samples: int = Field(
        0,
        ge=0,
        description="answers of the reference over which the reward gets mean 0 and deviation 1 before training "
        "(lm-human-preferences: 256); 0: the reward model's own scale",
    )
    missing_end_penalty: float = Field(
        1.0, ge=0, description="reward taken from an answer that was cut, in deviations (TRL's examples: 1)"
    )
    reward_clip: float = Field(5.0, gt=0, description="scores are clipped to +- this, deviations (DeepSpeed-Chat: 5)")
    reward_limit: float = Field(
        30.0,
        gt=0,
        description="deviations (the first batch's, 1 at least) from the first batch's mean reward that end the run",
    )
    ptx_coef: float = Field(0.0, ge=0, description="weight of the pre-training loss in the policy's (PPO-ptx: 27.8)")
    ptx_length: int = Field(256, ge=2, description="tokens a pre-training row")
    ptx_ratio: float = Field(8.0, gt=0, description="pre-training rows an episode of a minibatch (InstructGPT: 8)")
    stop_update_kl: float | None = Field(
        None,
        gt=0,
        description="nats a token (k3) between the policy and the one that sampled; beyond, it makes no more updates "
        "in this step (Spinning Up: 0.015); null: never",
    )
    stop_kl: float | None = Field(
        None, gt=0, description="nats an episode of KL from the reference that end the run; null: never"
    )
    samples_every: int = Field(10, ge=0, description="steps between answers written to rollouts.jsonl; 0: none")
    samples_kept: int = Field(4, ge=1, description="answers written each time")
    log_every: int = Field(1, ge=1, description="steps between lines on the terminal; log.jsonl has a row a step")
    spikes: dict[str, Any] | None = Field(
        {"deviations": 10, "drift": 1e6},
        description="policy on spikes of either model's loss and gradient (docs/resilience.md); null: none. No drift: "
        "these losses have no level of their own",
    )

    @model_validator(mode="after")
    def _whole_minibatches(self) -> PpoConfig:
        if self.batch_size % self.minibatches:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of minibatches {self.minibatches}")
        return self
