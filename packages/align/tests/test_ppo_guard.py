"""PPO where something goes wrong: rewards that are no numbers or explode, updates that spike."""

import json

import pytest
import torch

from headwater_align import reward_model
from headwater_align.ppo import experience, update

SETS = ["normalise_samples=0", "batch_size=16"]


def sets(*options):
    return [part for option in [*SETS, *options] for part in ("--set", option)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_reward_that_is_no_number_names_the_prompt(run_ppo, tmp_path, monkeypatch, capsys, instructions):
    monkeypatch.setattr(reward_model.RewardModel, "__call__", lambda model, rows, *rest: _second_is_nan(len(rows)))
    assert run_ppo(tmp_path, *sets("steps=1"), code=1) is None
    error = capsys.readouterr().err
    ids = [row["id"] for row in lines(instructions / "train.jsonl")]
    assert sum(f"prompt {name} the reward nan" in error for name in ids) == 1
    assert len(error.strip().splitlines()) == 1


def _second_is_nan(count):
    found = torch.zeros(count)
    found[1] = float("nan")
    return found


def test_rewards_that_explode_end_the_run_in_one_line(run_ppo, tmp_path, monkeypatch, capsys):
    calls = []

    def exploding(model, rows, *rest):
        calls.append(1)
        return torch.linspace(-1, 1, len(rows)) + (0 if len(calls) == 1 else 100.0)

    monkeypatch.setattr(reward_model.RewardModel, "__call__", exploding)
    assert run_ppo(tmp_path, *sets("steps=4"), code=1) is None
    error = capsys.readouterr().err
    assert "step 2: the mean reward is 100, +100.0 deviations" in error and "exploded" in error
    assert len(error.strip().splitlines()) == 1


def poison(monkeypatch, wanted):
    """Make advantages NaN in the n-th calls of `update`, for n in `wanted`."""
    from headwater_align.ppo import course

    real, calls = update.update, []

    def poisoned(actors, given, *rest):
        calls.append(1)
        if len(calls) in wanted:
            broken = torch.full_like(given.advantages, float("nan"))
            given = experience.Experience(**{**vars(given), "advantages": broken})
        return real(actors, given, *rest)

    monkeypatch.setattr(course, "update", poisoned)


def test_an_update_that_breaks_is_skipped_and_said(run_ppo, tmp_path, monkeypatch):
    poison(monkeypatch, {2})
    out = run_ppo(tmp_path, *sets("steps=3"))
    flight, log = lines(out / "flight.jsonl"), lines(out / "log.jsonl")
    assert [(event["step"], event["what"]) for event in flight] == [(2, "skip")]  # twice the same is said once
    assert "policy: loss is nan" in flight[0]["why"]
    assert [row["updates"] for row in log] == [2, 0, 2]
    assert json.loads((out / "metrics.json").read_text())["updates_skipped"] == 2


def test_when_it_keeps_happening_the_run_goes_back_and_on_with_other_prompts(run_ppo, tmp_path, monkeypatch):
    poison(monkeypatch, {3})
    spikes = "spikes={skips: 1, drift: 1000000, lr_factor: 0.5, rollbacks: 1}"
    out = run_ppo(tmp_path, *sets("steps=4", "checkpoint_every=1", spikes))
    flight, log = lines(out / "flight.jsonl"), lines(out / "log.jsonl")
    assert [(event["step"], event["what"]) for event in flight] == [(3, "skip"), (3, "rollback")]
    assert flight[1]["details"]["to"] == 2
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rollbacks"] == 1
    assert metrics["updates_skipped"] == 0  # that of the step that was given up went with it


def test_a_learning_rate_is_lowered_for_the_model_that_spikes(run_ppo, tmp_path, monkeypatch):
    poison(monkeypatch, {3})
    spikes = "spikes={measures: [lower_lr, stop], drift: 1000000, lr_factor: 0.5}"
    rates = ["policy_optimizer={lr: 0.002, warmup: 0}", "value_optimizer={lr: 0.002, warmup: 0}"]
    log = lines(run_ppo(tmp_path, *sets("steps=4", "checkpoint_every=1", spikes, *rates)) / "log.jsonl")
    assert [row["policy_lr"] for row in log] == pytest.approx([0.002, 0.002, 0.001, 0.001])
    assert [row["value_lr"] for row in log] == pytest.approx([0.002] * 4)


def test_when_nothing_is_left_to_try_the_run_ends_in_one_line(run_ppo, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {1})
    assert run_ppo(tmp_path, *sets("steps=2", "spikes={measures: [stop]}"), code=1) is None
    error = capsys.readouterr().err
    assert "step 1: the policy's loss is nan; nothing is left to try" in error
    assert len(error.strip().splitlines()) == 1
