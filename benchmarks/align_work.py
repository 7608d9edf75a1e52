"""What benchmarks/align.py measures, each in a process of its own: see model_work.py, whose turns these take.

A step of a contestant is one pass over the data: all rows, all comparisons, or one batch of episodes. What it answers
is its loss before the first update, on rows that both sides have: both must start from the same place.
"""

from __future__ import annotations

import json
import os
import random
import sys
from contextlib import redirect_stdout
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from model_work import TYPES, Turns, keep_pages

LAYERS, HIDDEN, HEADS, FFN, VOCABULARY, CONTEXT = 6, 320, 5, 864, 8192, 512
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
ROWS, BATCH = 64, 8
PROMPTS, ANSWERS, COMPARED = 8, 4, 2
"""Prompts, completions of each, and prompts an optimiser step: 12 comparisons."""
EPISODES, QUESTION, RESPONSE, EPOCHS = 16, 48, 32, 4
LR = 2e-5
"""TRL's default for SFT; it does not matter for the speed."""
NOTHING = 1e-12
"""A learning rate at which the losses of all epochs are those of the first."""


# ---- the models and the data that both read


def write_inputs(precision: str, folder: str) -> None:
    """policy and reward, Hugging Face folders with fresh weights, and data.json."""
    from tokenizers import Tokenizer, models

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    where = Path(folder)
    words = where / "tokenizer"
    words.mkdir()
    names = {**{word: i for i, word in enumerate(SPECIAL)}, **{f"w{i}": i for i in range(len(SPECIAL), VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="w8191"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(words / "tokenizer.json"))
    settings = {"eos_token": SPECIAL[0], "pad_token": SPECIAL[1], "tokenizer_class": "PreTrainedTokenizerFast"}
    (words / "tokenizer_config.json").write_text(json.dumps(settings))
    runtime.initialize(seed=1)
    config = ModelConfig(
        layers=LAYERS, hidden=HIDDEN, heads=HEADS, ffn=FFN, vocab=VOCABULARY, context=CONTEXT, tie_embeddings=True
    )
    assert round(config.parameters / 1e6, 2) == 10.06
    pretrained.save(where / "policy", gpt.build(config, seed=1), config, words)
    judge = gpt.build(config, "scalar", seed=2)
    with torch.no_grad():
        judge.output_layer.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(3))
    pretrained.save(where / "reward", judge, config, words, "scalar")
    (where / "data.json").write_text(json.dumps(data()))


def data() -> dict[str, list]:
    """Rows, comparisons and prompts in ids; lengths are drawn from log-normal distributions, ids as 1/rank.

    The rows have about 150 tokens, 57% of them the assistant's; the completions about 155 with their prompt; so had
    those of the issue's figures.
    """
    draw = random.Random(1)
    weights = [1 / (i + 1) for i in range(VOCABULARY - len(SPECIAL))]

    def words(count: int) -> list[int]:
        return [i + len(SPECIAL) for i in draw.choices(range(len(weights)), weights, k=count)]

    def length(median: float, least: int, most: int) -> int:
        return min(max(round(draw.lognormvariate(0, 0.7) * median), least), most)

    rows = []
    for _ in range(ROWS):
        prompt = [3, *words(length(48, 4, 200)), 5, 4]
        answer = [*words(length(66, 4, 300)), 5]
        rows.append({"ids": prompt + answer, "supervised": [False] * len(prompt) + [True] * len(answer)})
    compared = []
    for _ in range(PROMPTS):
        prompt = [3, *words(length(60, 4, 200)), 5, 4]
        compared.append([prompt + [*words(length(66, 4, 300)), 5] for _ in range(ANSWERS)])  # the best first
    return {"rows": rows, "compared": compared, "prompts": [words(QUESTION) for _ in range(EPISODES)]}


def count_tokens(precision: str, folder: str) -> None:
    """Real tokens of the rows."""
    print(sum(len(row["ids"]) for row in read(folder)["rows"]), file=sys.__stdout__)


def read(folder: str) -> dict[str, list]:
    return json.loads((Path(folder) / "data.json").read_text())


# ---- SFT: a step is an epoch over 64 rows, 8 an update; what it answers: the loss of the first 8


def sft_headwater(precision: str, folder: str) -> None:
    from headwater_align import sft
    from headwater_align.batching import length_buckets
    from headwater_align.chat_format import Rendered
    from headwater_align.engine import next_token_loss

    trainer, filler = _trainer(folder, "policy", precision)
    rows = [Rendered(row["ids"], row["supervised"]) for row in read(folder)["rows"]]
    lengths = [len(row.ids) for row in rows]
    start = trainer.evaluate(sft.microbatches(rows[:BATCH], BATCH, filler), next_token_loss)["loss"]
    turns = Turns(warm=1)
    epoch = 0
    while True:
        for numbers in length_buckets(lengths, BATCH, 1, epoch):
            trainer.step(sft.microbatches([rows[n] for n in numbers], BATCH, filler), next_token_loss)
        epoch += 1
        turns.step_done([start])


def sft_trl(precision: str, folder: str, settings: str) -> None:
    """TRL's SFTTrainer; settings: defaults, plain (no checkpointing), grouped (rows of like length) or packed."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = read(folder)["rows"]
    data = Dataset.from_list(
        [{"input_ids": r["ids"], "completion_mask": list(map(int, r["supervised"]))} for r in rows]
    )
    packed = settings == "packed"
    own: dict[str, Any] = {"max_length": CONTEXT, "packing": packed, "learning_rate": LR}
    # Packed to 512 tokens, 64 rows make about 20 sequences.
    own["per_device_train_batch_size"] = 3 if packed else BATCH
    arguments = SFTConfig(**own, **_arguments(folder, precision, settings))
    trainer = SFTTrainer(
        f"{folder}/policy", args=arguments, train_dataset=data, processing_class=_tokenizer(folder),
    )  # fmt: skip
    start = None
    if not packed:
        batch = trainer.data_collator([_labelled(row) for row in rows[:BATCH]])
        with torch.no_grad(), trainer.compute_loss_context_manager():
            start = trainer.compute_loss(trainer.model, batch).item()
    _by_epochs(trainer, [start])


def _labelled(row: dict) -> dict:
    labels = [i if mine else -100 for i, mine in zip(row["ids"], row["supervised"], strict=True)]
    return {"input_ids": row["ids"], "labels": labels}


# ---- reward model: a step is an epoch over 8 prompts of 4 ranked completions, which are 48 comparisons


def reward_headwater(precision: str, folder: str) -> None:
    from headwater_align.batching import length_buckets
    from headwater_align.rankings import Ranking
    from headwater_align.reward.data import microbatches
    from headwater_align.reward.stage import objective

    trainer, filler = _trainer(folder, "reward", precision)
    ranks = list(range(1, ANSWERS + 1))
    compared = [
        Ranking(str(n), answers, ranks, QUESTION, "random", None, 0.0)
        for n, answers in enumerate(read(folder)["compared"])
    ]
    lengths, loss = [ranking.longest for ranking in compared], objective(0.0, 0.0)
    start = trainer.evaluate(microbatches(compared, filler, ANSWERS), loss)["loss"]
    turns = Turns(warm=1)
    epoch = 0
    while True:
        for numbers in length_buckets(lengths, COMPARED, 1, epoch):
            trainer.step(microbatches([compared[n] for n in numbers], filler, COMPARED * ANSWERS), loss)
        epoch += 1
        turns.step_done([start])


def reward_trl(precision: str, folder: str, settings: str) -> None:
    """TRL's RewardTrainer on the same comparisons as pairs; settings: defaults or plain (no checkpointing)."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    pairs = [
        {"chosen_ids": better, "rejected_ids": worse}
        for answers in read(folder)["compared"]
        for better, worse in combinations(answers, 2)
    ]
    comparisons = COMPARED * ANSWERS * (ANSWERS - 1) // 2
    arguments = RewardConfig(
        per_device_train_batch_size=comparisons, max_length=CONTEXT, learning_rate=LR,
        **_arguments(folder, precision, settings),
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(f"{folder}/reward", num_labels=1)
    trainer = RewardTrainer(
        model, args=arguments, train_dataset=Dataset.from_list(pairs), processing_class=_tokenizer(folder)
    )
    with torch.no_grad(), trainer.compute_loss_context_manager():
        start = trainer.compute_loss(trainer.model, trainer.data_collator(pairs)).item()
    _by_epochs(trainer, [start])


# ---- PPO: a step is a batch of 16 episodes with 4 epochs of updates


def ppo_headwater(precision: str, folder: str) -> None:
    from headwater_align.ppo.experience import evaluate_episodes
    from headwater_align.ppo.rollouts import sample
    from headwater_align.ppo.update import update
    from headwater_align.sampling import draw_seed

    actors, config = _actors(precision, folder, LR)
    prompts = read(folder)["prompts"]
    turns = Turns(warm=1)
    step = 0
    while True:
        seed = draw_seed(1, step)
        episodes = sample(actors.policy.module, prompts, actors.chat, RESPONSE, seed, EPISODES)
        experience, _ = evaluate_episodes(actors, episodes, config, config.kl_coef, seed)
        update(actors, experience, config, seed)
        step += 1
        turns.step_done()


def ppo_check_headwater(precision: str, folder: str) -> None:
    """Score, KL, policy and value loss of given episodes, and the likelihood of their answers; nothing is learnt."""
    from headwater_align.ppo.experience import evaluate_episodes
    from headwater_align.ppo.rollouts import Episodes
    from headwater_align.ppo.update import update

    actors, config = _actors(precision, folder, NOTHING)
    data = read(folder)
    episodes = Episodes(data["prompts"], _given(), [False] * EPISODES)
    experience, figures = evaluate_episodes(actors, episodes, config, config.kl_coef, 1)
    figures |= update(actors, experience, config, 1)
    entropy = figures["entropy"] * RESPONSE
    Turns(warm=1).step_done([figures["score"], figures["kl"], entropy, figures["value_loss"]])


def _actors(precision: str, folder: str, lr: float) -> tuple[Any, Any]:
    from headwater_align.chat_format import ChatFormat
    from headwater_align.config import PpoConfig, PpoOptimization
    from headwater_align.engine import pretrained
    from headwater_align.ppo.experience import Actors
    from headwater_align.reward_model import RewardModel

    rates = PpoOptimization(lr=lr, warmup=0.0)
    config = PpoConfig(
        batch_size=EPISODES, minibatches=1, inner_epochs=EPOCHS, micro_batch=EPISODES, max_prompt_length=QUESTION,
        max_response_length=RESPONSE, kl_coef=0.05, missing_end_penalty=0.0, reward_clip=1e9, policy_optimizer=rates,
        value_optimizer=rates,
    )  # fmt: skip
    policy, _ = _trainer(folder, "policy", precision, lr)
    value, _ = _trainer(folder, "reward", precision, lr)
    reference, reward = (pretrained.load(Path(folder) / name, dtype=TYPES[precision]) for name in ("policy", "reward"))
    chat = ChatFormat(reference.tokenizer)
    return Actors(policy, value, reference, RewardModel(reward, 1.0, 0.0), chat, None), config


def _given() -> list[list[int]]:
    """Answers that neither side samples, for the comparison of their losses."""
    generator = torch.Generator().manual_seed(4)
    return torch.randint(len(SPECIAL), VOCABULARY, (EPISODES, RESPONSE), generator=generator).tolist()


def ppo_trl(precision: str, folder: str, settings: str) -> None:
    turns = Turns(warm=1)
    _ppo_trl(precision, folder, settings, LR, lambda metrics: turns.step_done())


def ppo_check_trl(precision: str, folder: str) -> None:
    """The figures of `ppo_check_headwater` by TRL, which is handed the same answers in place of its samples."""
    from trl.experimental.ppo import ppo_trainer

    def given(model: Any, queries: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        order = [read(folder)["prompts"].index(query) for query in queries.tolist()]
        rows = torch.cat([queries, torch.tensor(_given())[order]], 1)
        return rows, model(rows).logits[:, QUESTION - 1 : -1]

    ppo_trainer.batch_generation = torch.no_grad()(given)
    turns = Turns(warm=1)
    names = ["objective/scores", "objective/kl", "objective/entropy", "loss/value_avg"]
    _ppo_trl(precision, folder, "plain", NOTHING, lambda metrics: turns.step_done([metrics[name] for name in names]))


def _ppo_trl(precision: str, folder: str, settings: str, lr: float, after_step: Any) -> None:
    """TRL's PPOTrainer, 16 episodes a batch in one minibatch; `after_step` is called with each step's figures."""
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class Pause(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            after_step(state.log_history[-1] if state.log_history else {})

    arguments = PPOConfig(
        per_device_train_batch_size=EPISODES, num_mini_batches=1, num_ppo_epochs=EPOCHS, response_length=RESPONSE,
        total_episodes=10**6, num_sample_generations=0, temperature=1.0, learning_rate=lr, kl_coef=0.05,
        **_arguments(folder, precision, settings),
    )  # fmt: skip
    policy, reference = (AutoModelForCausalLM.from_pretrained(f"{folder}/policy") for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(f"{folder}/reward", num_labels=1) for _ in range(2)
    )
    trainer = PPOTrainer(
        args=arguments, processing_class=_tokenizer(folder), model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=Dataset.from_dict({"input_ids": read(folder)["prompts"]}), callbacks=[Pause()],
    )  # fmt: skip
    trainer.train()


# ---- what they share


def _trainer(folder: str, name: str, precision: str, lr: float = LR) -> tuple[Any, int]:
    """Our trainer of a folder's model, and the id that fills rows up."""
    from headwater_align.config import Optimization
    from headwater_align.engine import make_trainer, pretrained, runtime

    runtime.initialize(seed=1)
    loaded = pretrained.load(Path(folder) / name, dtype=TYPES[precision])
    rates = Optimization(lr=lr, decay="constant", warmup=0.0, beta2=0.999)
    return make_trainer(loaded.model, rates, 10**6), SPECIAL.index("<|pad|>")


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(f"{folder}/tokenizer")


def _arguments(folder: str, precision: str, settings: str) -> dict[str, Any]:
    """Of transformers' Trainer: TRL's defaults but for what would be no part of the training."""
    chosen: dict[str, Any] = {"bf16": precision == "bf16"}
    if settings != "defaults":
        chosen["gradient_checkpointing"] = False
    if settings == "grouped":
        chosen["train_sampling_strategy"] = "group_by_length"
    return {
        **chosen, "output_dir": f"{folder}/unused", "use_cpu": True, "report_to": [], "disable_tqdm": True,
        "save_strategy": "no", "seed": 1,
    }  # fmt: skip


def _by_epochs(trainer: Any, made: list) -> None:
    from transformers import TrainerCallback

    turns = Turns(warm=1)

    class Pause(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            turns.step_done(made)

    trainer.args.num_train_epochs = 10**4
    trainer.add_callback(Pause())
    trainer.train()


if __name__ == "__main__":
    name, threads, precision, *rest = sys.argv[1:]
    torch.set_num_threads(int(threads))
    if os.environ.get("KEEP_PAGES"):
        keep_pages()
    with redirect_stdout(sys.stderr):  # TRL's own lines would stand between the answers
        globals()[name](precision, *rest)
