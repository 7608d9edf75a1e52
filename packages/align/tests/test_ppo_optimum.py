"""PPO with its real models, rollouts and updates on a task whose optimum is known."""

from dataclasses import dataclass

import pytest
import torch

STEPS, EPISODES, TOKENS = 20, 64, 6


@dataclass
class ShareOf:
    """In place of a reward model: the share of an answer's `TOKENS` places that hold one token; at most 1."""

    token: int
    gain: float = 1.0
    bias: float = 0.0

    def __call__(self, rows, filler, size):
        return torch.tensor([row.count(self.token) / TOKENS for row in rows])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_reward_for_one_token_is_driven_to_its_maximum(base_model, seed):
    """From 1/264 a token, all ids being as likely at first; every answer in the token alone scores 1."""
    from headwater_align import train_ppo
    from headwater_align.chat_format import ChatFormat
    from headwater_align.config import PpoConfig, PpoOptimization
    from headwater_align.engine import make_trainer, pretrained, runtime
    from headwater_align.rollouts import draw_seed, sample

    runtime.initialize(seed=seed)
    torch.set_num_threads(1)
    rates = PpoOptimization(lr=0.01, warmup=0.0)
    config = PpoConfig(
        batch_size=EPISODES, minibatches=2, inner_epochs=4, micro_batch=32, max_response_length=TOKENS, kl_coef=0.0,
        missing_end_penalty=0.0, policy_optimizer=rates, value_optimizer=rates,
    )  # fmt: skip
    policy, reference = (pretrained.load(base_model) for _ in range(2))
    value = pretrained.load(base_model, head="scalar")
    chat = ChatFormat(policy.tokenizer)
    (token,) = chat.encode(["a"])[0]
    actors = train_ppo.Actors(
        make_trainer(policy.model, rates, STEPS * 8), make_trainer(value.model, rates, STEPS * 8), reference,
        ShareOf(token), chat, None,
    )  # fmt: skip
    prompts = chat.prompts([[{"role": "user", "content": f"Number {i}?"}] for i in range(EPISODES)])
    rewards = []
    for step in range(STEPS):
        made = sample(actors.policy.module, prompts, chat, TOKENS, draw_seed(seed, step), EPISODES)
        experience, figures = train_ppo.evaluate_episodes(actors, made, config, config.kl_coef)
        train_ppo.update(actors, experience, config, draw_seed(seed, step))
        rewards.append(figures["reward"])
    assert rewards[0] < 0.05
    assert min(rewards[-3:]) > 0.95
