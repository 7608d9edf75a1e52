"""Stage `ppo`: step after step from the SFT model to the aligned policy, on one rank or many, killed and resumed.

Four models: the policy, which starts as the SFT model; the reference, which stays it (or another, `--in reference`);
the reward model; and the value function, which starts as the reward model. One step: sample answers, score them,
estimate advantages, and update value function and policy on minibatches.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from .. import job, jsonl, ranks
from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..chat_format import ChatFormat
from ..config import PpoConfig
from ..engine import Loaded, RunConfig, adapters_of, export, make_trainer, pretrained, settings_of
from ..reward_model import RewardModel
from ..sampling import draw_seed
from ..training import read_log
from .course import Course
from .experience import Actors, normalised_on_reference
from .pretraining_rows import PretrainingRows
from .prompts import Prompt, prompt_numbers, prompts_of
from .rollouts import sample

NORMALISED, ENDED = "normalised.json", "ended.json"
"""In the work folder: gain and bias over the reference's answers; what one rank tells the process that exports."""


def run(run: Run) -> None:
    """Train, and write the export, log.jsonl, curve.csv, rollouts.jsonl, flight.jsonl and metrics.json."""
    config: PpoConfig = run.config
    _check(settings_of(config, run.stage.name))
    job.start(run, train, "policy", "reward", whole_rows="context-parallel ranks can't sample")
    policy = job.trained(run, run.inputs["policy"], "policy")
    chat = ChatFormat(policy.tokenizer)
    export(run.out, policy, chat, "lm")
    log = read_log(run.out)
    write_atomic(run.out / "curve.csv", curve(log))
    prompts, too_long = _prompts(run, chat)
    ended = json.loads((run.work / ENDED).read_text())
    run.write_metrics(
        {
            "steps": len(log),
            "episodes": len(log) * config.batch_size,
            "prompts": len(prompts),
            "prompts_too_long": too_long,
            "train_reward_first": log[0]["reward"],
            "train_reward_last": log[-1]["reward"],
            "train_kl_last": log[-1]["kl"],
            **ended,
        }
    )


def train(run: Run, rank_files: Path | None) -> None:
    """One rank's part of the training."""
    config: PpoConfig = run.config
    settings = settings_of(config, run.stage.name)
    actors, start = _cast(run, settings)
    prompts, too_long = _prompts(run, actors.chat)
    if not prompts:
        raise UserError("no prompt to train on; raise max_prompt_length or give more instructions")
    run.log(f"{len(prompts)} prompts, {too_long} longer than {config.max_prompt_length} tokens left out")
    _normalise(run, actors, prompts)
    course = Course(run, settings, actors, prompts, start, rank_files)
    ended = course.run()
    if ranks.is_first():
        jsonl.write(run.out / "log.jsonl", course.place.log)
        jsonl.write(run.out / "rollouts.jsonl", course.place.samples)
        write_atomic(run.out / "flight.jsonl", course.flight.text())
        about = {
            "ended": ended,
            "gain": actors.reward.gain,
            "bias": actors.reward.bias,
            "updates_skipped": course.place.skipped,
            "rollbacks": course.place.rollbacks,
            "sampled_tokens": course.place.tokens,
        }
        write_atomic(run.work / ENDED, canonical_json(about))
    job.leave_weights(run, policy=actors.policy)


def curve(log: Sequence[dict]) -> str:
    """The reward against the KL, step by step, as CSV: Gao et al. 2023 (arXiv:2210.10760) draw it over sqrt(KL).

    The reward is that of the training prompts' answers by the reward model that is trained against, before clipping: no
    gold reward. A KL below 0, an estimate's right, has the root 0.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "sqrt_kl", "kl", "reward", "total"])
    for row in log:
        figures = (math.sqrt(max(row["kl"], 0.0)), row["kl"], row["reward"], row["total"])
        table.writerow([row["step"], *(f"{figure:.6g}" for figure in figures)])
    return text.getvalue()


def _prompts(run: Run, chat: ChatFormat) -> tuple[list[Prompt], int]:
    """Those of the training side, and how many were too long."""
    config: PpoConfig = run.config
    return prompts_of(run.inputs["instructions"], "train", chat, config.max_prompt_length, config.turns)


def _check(settings: RunConfig) -> None:
    """Refuse settings that other stages have and this one has not, before any rank is started."""
    other = sorted(settings.checkpoints.model_fields_set - {"last"})
    if other:
        raise UserError(f"ppo.checkpoints.{other[0]}: PPO keeps the newest checkpoints (last) only; remove it")


def _cast(run: Run, settings: RunConfig) -> tuple[Actors, Loaded]:
    """Load the models; also the policy as loaded, with its shape.

    Raises:
        UserError: models that do not fit each other, the lengths or the layout; ptx without tokens.
    """
    config: PpoConfig = run.config
    dtype = pretrained.TYPES[config.dtype]
    policy = pretrained.load(run.inputs["policy"], dtype=dtype)
    reference = pretrained.load(run.inputs.get("reference", run.inputs["policy"]), dtype=dtype)
    reward = RewardModel.load(run.inputs["reward"], dtype)
    value = pretrained.load(run.inputs["reward"], head="scalar", dtype=dtype)
    for name, model in (("reward", value), ("reference", reference)):
        if model.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise UserError(f"{run.inputs[name]}: another tokenizer than the policy's; train it from this SFT model")
    longest = config.max_prompt_length + config.max_response_length
    for name, model in (("policy", policy), ("reference", reference), ("reward", value)):
        if longest > model.config.context:
            raise UserError(
                f"max_prompt_length + max_response_length is {longest}, above the {name} model's context of "
                f"{model.config.context}; lower one of them"
            )
    pretraining = None
    if config.ptx_coef:
        if "tokens" not in run.inputs:
            raise UserError("ptx_coef needs --in tokens=DIR, the pre-training tokens; or set ptx_coef to 0")
        if config.ptx_length > policy.config.context:
            raise UserError(f"ptx_length {config.ptx_length} is above the model's context of {policy.config.context}")
        pretraining = PretrainingRows(run.inputs["tokens"], config.ptx_length)
    reference.model.requires_grad_(False)
    reward.loaded.model.requires_grad_(False)
    adapters = adapters_of(config, run.stage.name)
    updates = config.steps * config.inner_epochs * config.minibatches
    actors = Actors(
        policy=make_trainer(policy.model, config.policy_optimizer, updates, adapters, config.seed),
        value=make_trainer(value.model, config.value_optimizer, updates, adapters, config.seed),
        reference=reference,
        reward=reward,
        chat=ChatFormat(policy.tokenizer),
        pretraining=pretraining,
    )
    return actors, policy


def _normalise(run: Run, actors: Actors, prompts: Sequence[Prompt]) -> None:
    """Give the reward mean 0 and deviation 1 over answers of the reference, once a run, if the config says so."""
    config: PpoConfig = run.config
    if not config.normalise_samples:
        return
    path = run.work / NORMALISED
    found = ranks.from_first(json.loads(path.read_text()) if path.exists() else None)
    if found is None:
        seed = draw_seed(config.seed, 2**30)
        numbers = prompt_numbers(len(prompts), config.normalise_samples, 0, seed)
        asked = [prompts[n].ids for n in numbers]
        length, size = config.max_response_length, config.sample_batch
        episodes = sample(actors.reference.model, asked, actors.chat, length, seed, size)
        gain, bias = normalised_on_reference(actors, episodes, config.micro_batch)
        found = {"gain": gain, "bias": bias}
        if ranks.is_first():
            write_atomic(path, canonical_json(found))
    actors.reward.gain, actors.reward.bias = found["gain"], found["bias"]
    run.log(f"reward: mean 0 and deviation 1 over {config.normalise_samples} answers of the reference")
