"""Stage `outcome`: base, SFT, best-of-N and every trained policy on the same held-out prompts.

For each model, with 95% intervals over conversations: reward, KL from SFT, length, share that ends by itself, and how
often its answer beats SFT's in the reward model's eyes, and in people's where labels are given. `curve.csv` has reward
against KL for best-of-N and along each PPO run: where reward rises and win rates do not, the reward model is being
fooled (Gao et al. 2023, arXiv:2210.10760).
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np

from .. import jsonl
from .._contracts.errors import UsageError, UserError
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..chat_format import ChatFormat
from ..conversation import transcript
from ..engine import Loaded, pretrained, runtime
from ..intervals import bootstrap_mean
from ..ppo.prompts import prompts_of
from ..reward_model import RewardModel
from . import best_of_n
from .answers import Answer, draw, load, save, score, table
from .config import OutcomeConfig
from .people import win_rates

GIVEN = ("sft", "reward", "instructions")
Figures = dict[str, float]


def run(run: Run) -> None:
    """Sample, score, compare; write samples.jsonl, curve.csv and metrics.json."""
    config: OutcomeConfig = run.config
    runtime.initialize(seed=config.seed)
    policies, labels = _further(run)
    sft = _load(run, "sft")
    judge = RewardModel.load(run.inputs["reward"], pretrained.TYPES[config.dtype])
    if judge.loaded.tokenizer.get_vocab() != sft.tokenizer.get_vocab():
        raise UserError(f"{run.inputs['reward']}: another tokenizer than the SFT model's; train it from this model")
    chat = ChatFormat(sft.tokenizer)
    found, too_long = prompts_of(run.inputs["instructions"], "heldout", chat, config.max_prompt_length, config.turns)
    prompts = [prompt.ids for prompt in found[: config.prompts]]
    conversations = [prompt.id for prompt in found[: config.prompts]]
    if not prompts:
        raise UserError("no held-out prompt is short enough; raise max_prompt_length or give more instructions")

    answers: dict[str, list[Answer]] = {}
    for name in policies:
        model = sft if name == "sft" else _load(run, name)
        if model.tokenizer.get_vocab() != sft.tokenizer.get_vocab():
            raise UserError(f"{run.inputs[name]}: another tokenizer than the SFT model's; its KL means nothing")
        answers[name] = _answers(run, name, model, sft, judge, chat, prompts, config.samples_per_prompt, config.seed)
    sft_again: list[Answer] = []
    if config.best_of:
        most = max(config.best_of)
        sft_again = _answers(run, "best-of", sft, sft, judge, chat, prompts, most, config.seed + 1)

    figures = {name: compare(answers[name], answers["sft"], conversations, config) for name in policies}
    for n in sorted(config.best_of):
        figures[f"best-of-{n}"] = best(sft_again, answers["sft"], conversations, n, config)
    for name, rates in win_rates([run.inputs[name] for name in labels], "sft", config.seed).items():
        figures.setdefault(name, {}).update(rates)
    for name in figures:
        run.log(_line(name, figures[name]))
    _write_samples(run, answers, sft_again, [transcript(chat.messages(ids)) for ids in prompts])
    write_atomic(run.out / "curve.csv", curve(run, policies, figures))
    run.write_metrics({"prompts": len(prompts), "prompts_too_long": too_long, "models": figures})


def _further(run: Run) -> tuple[list[str], list[str]]:
    """(policies in order, labels artefacts) among the inputs.

    Raises:
        UsageError: a model that has the name of one of the outcome's own.
    """
    further = [name for name in run.inputs if name not in GIVEN]
    labels = [name for name in further if run.manifests[name].kind == "labels"]
    models = [name for name in further if name not in labels]
    if taken := [name for name in models if name.startswith("best-of-")]:
        raise UsageError(f"--in {taken[0]}=...: that name is best-of-N sampling's; give the model another one")
    order = [name for name in run.config.order if name in (*models, "sft")]
    return order + sorted({*models, "sft"} - set(order)), sorted(labels)


def _load(run: Run, name: str) -> Loaded:
    return pretrained.load(run.inputs[name], dtype=pretrained.TYPES[run.config.dtype])


def _answers(
    run: Run, name: str, model: Loaded, sft: Loaded, judge: RewardModel, chat: ChatFormat,
    prompts: list[list[int]], samples: int, seed: int,
) -> list[Answer]:  # fmt: skip
    """A model's scored answers; kept in the work folder, so that a killed run goes on with the next model."""
    path, config = run.work / f"{name}.jsonl", run.config
    if (there := load(path)) is not None:
        return there
    context = min(model.config.context, judge.loaded.config.context)
    if config.max_prompt_length + config.max_response_length > context:
        raise UserError(
            f"{name}: max_prompt_length + max_response_length is above the context of {context}; lower one of them"
        )
    run.progress(f"{name}: {len(prompts) * samples} answers")
    episodes = draw(model.model, prompts, samples, chat, config.max_response_length, seed, config.batch)
    made = score(episodes, samples, model.model, sft.model, judge, chat, config.batch)
    if bad := [answer.prompt for answer in made if not math.isfinite(answer.reward)]:
        raise UserError(
            f"{name}: the reward of an answer to prompt {bad[0]} is no number; train the reward model again"
        )
    save(path, made)
    return made


def compare(answers: list[Answer], sft: list[Answer], conversations: list[str], config: OutcomeConfig) -> Figures:
    """A model's figures, and against SFT's answers of the same seeds; ties count one half.

    Args:
        conversations: that each prompt is of.
    """
    own, other = table(answers, len(conversations)), table(sft, len(conversations))
    weights = np.full(own["reward"].shape, 1 / own["reward"].shape[1])
    return _figures(own, weights, other, conversations, config)


def best(samples: list[Answer], sft: list[Answer], conversations: list[str], n: int, config: OutcomeConfig) -> Figures:
    """Best-of-N's figures, from samples that SFT's own answers are not among."""
    own, other = table(samples, len(conversations)), table(sft, len(conversations))
    weights = np.array([best_of_n.weights(rewards, n) for rewards in own["reward"]])
    found = _figures(own, weights, other, conversations, config)
    kl = best_of_n.kl(n)
    return {**found, "kl": kl, "kl_low": kl, "kl_high": kl, "total": found["reward"] - config.kl_coef * kl}


def _figures(
    own: dict[str, np.ndarray], weights: np.ndarray, sft: dict[str, np.ndarray], conversations: list[str],
    config: OutcomeConfig,
) -> Figures:  # fmt: skip
    """Weighted means over each prompt's samples, then over prompts, with bootstrap intervals over conversations."""
    found: Figures = {}

    def add(name: str, by_prompt: np.ndarray, interval: bool = True) -> None:
        mean, low, high = bootstrap_mean(by_prompt, config.seed, config.resamples, conversations)
        found[name] = mean
        if interval:
            found.update({f"{name}_low": low, f"{name}_high": high})

    add("reward", (weights * own["reward"]).sum(1))
    add("kl", (weights * own["kl"]).sum(1))
    add("answer_tokens", (weights * own["tokens"]).sum(1))
    add("finished", (weights * own["finished"]).sum(1), interval=False)
    add("entropy", (weights * own["surprise"]).sum(1), interval=False)
    add("reward_gain", (weights * own["reward"]).sum(1) - sft["reward"].mean(1))
    beaten = (own["reward"][:, :, None] > sft["reward"][:, None, :]) + 0.5 * (
        own["reward"][:, :, None] == sft["reward"][:, None, :]
    )
    add("win_rate", (weights * beaten.mean(2)).sum(1))
    return {**found, "total": found["reward"] - config.kl_coef * found["kl"]}


def curve(run: Run, policies: list[str], figures: dict[str, Figures]) -> str:
    """Reward against KL as CSV: run, step or N, KL, its root, reward; PPO's from the logs of its training prompts."""
    rows: list[dict[str, Any]] = []

    def add(name: str, at: int, kl: float, reward: float) -> None:
        rows.append({"run": name, "at": at, "kl": kl, "sqrt_kl": math.sqrt(max(kl, 0.0)), "reward": reward})

    for name in figures:
        if name.startswith("best-of-"):
            add("best-of-N", int(name.removeprefix("best-of-")), figures[name]["kl"], figures[name]["reward"])
    for name in policies:
        path = run.inputs[name] / "log.jsonl"
        log = jsonl.read(path) if path.exists() else []
        for row in log:
            if "reward" in row and "kl" in row:
                add(f"{name}, training", row["step"], row["kl"], row["reward"])
        add(name, 0, figures[name]["kl"], figures[name]["reward"])
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", "at", "kl", "sqrt_kl", "reward"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_samples(run: Run, answers: dict[str, list[Answer]], more: list[Answer], prompts: list[str]) -> None:
    """Every answer, best-of-N's as the best of the first N; with score, KL and total reward (lm-human-preferences)."""
    beta = run.config.kl_coef

    def record(name: str, a: Answer, kl: float) -> dict[str, Any]:
        return {
            "id": a.prompt, "prompt": prompts[a.prompt], "model": name, "answer": a.text, "tokens": a.tokens,
            "finished": a.finished, "reward": a.reward, "kl": kl, "total": a.reward - beta * kl,
        }  # fmt: skip

    rows = [record(name, a, a.kl) for name in answers for a in answers[name]]
    for n in sorted(run.config.best_of):
        for number in range(len(prompts)):
            drawn = [a for a in more if a.prompt == number][:n]
            rows.append(record(f"best-of-{n}", max(drawn, key=lambda a: a.reward), best_of_n.kl(n)))
    jsonl.write(run.out / "samples.jsonl", rows)


def _line(name: str, found: Figures) -> str:
    if "reward" not in found:
        return f"{name}: people prefer it to SFT in {found['people_win_rate']:.2f} of comparisons"
    return (
        f"{name}: reward {found['reward']:.3f} [{found['reward_low']:.3f}, {found['reward_high']:.3f}], "
        f"KL {found['kl']:.2f} nats, {found['answer_tokens']:.1f} tokens, wins {found['win_rate']:.2f} against SFT"
    )
