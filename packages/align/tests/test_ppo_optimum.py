"""PPO on a task whose optimum is known: the reward is the share of one byte in the answer, so 1 is the most."""

import pytest

from headwater_align.chat_format import ChatFormat
from headwater_align.config import PpoConfig, PpoOptimization
from headwater_align.engine import make_trainer, pretrained, runtime, torch
from headwater_align.ppo.experience import Actors, evaluate_episodes
from headwater_align.ppo.rollouts import sample
from headwater_align.ppo.update import update
from headwater_align.sampling import draw_seed

STEPS, EPOCHS, LENGTH = 44, 2, 6


class Share:
    """A judge that counts: the share of a token among an answer's last `LENGTH`."""

    gain, bias = 1.0, 0.0

    def __init__(self, token):
        self.token = token

    def __call__(self, rows, filler, size):
        return torch.tensor([row[-LENGTH:].count(self.token) / LENGTH for row in rows])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_comes_near_the_optimum_and_the_reference_stays(seed, base_model):
    runtime.initialize(seed=seed)
    torch.set_num_threads(1)
    rates = PpoOptimization(lr=0.005, warmup=0.0)
    config = PpoConfig(
        seed=seed, steps=STEPS, batch_size=64, minibatches=1, inner_epochs=EPOCHS, micro_batch=64, kl_coef=0.0,
        missing_end_penalty=0.0, max_response_length=LENGTH, policy_optimizer=rates, value_optimizer=rates,
    )  # fmt: skip
    policy, reference = pretrained.load(base_model), pretrained.load(base_model)
    value = pretrained.load(base_model, head="scalar")
    before = {name: weight.clone() for name, weight in reference.model.state_dict().items() if weight is not None}
    token = 65 + seed
    trainers = [make_trainer(model.model, rates, STEPS * EPOCHS) for model in (policy, value)]
    actors = Actors(*trainers, reference, Share(token), ChatFormat(policy.tokenizer), None)
    prompts = [[259, 40 + row % 3, 261, 260] for row in range(config.batch_size)]
    rewards = []
    for step in range(STEPS):
        draws = draw_seed(seed, step)
        episodes = sample(actors.policy.module, prompts, actors.chat, LENGTH, draws, 64)
        experience, figures = evaluate_episodes(actors, episodes, config, config.kl_coef, draws)
        update(actors, experience, config, draws)
        rewards.append(figures["reward"])
    assert rewards[0] < 0.1  # one of 262 bytes, by chance
    assert sum(rewards[-5:]) / 5 > 0.9
    after = reference.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
