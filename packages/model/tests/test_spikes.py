"""A spike is seen when it comes, noise is not one, and a run that meets one ends near the run that did not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headwater_model import checkpoint
from headwater_model.config import CheckpointConfig, ModelConfig, OptimizerConfig, ScheduleConfig, SpikeConfig
from headwater_model.gpt import build
from headwater_model.saver import Saver
from headwater_model.spikes import Action, Policy
from headwater_model.trainer import Trainer

SEEDS = st.integers(0, 2**32 - 1)


def curve(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient norm of a run without a spike: a power law with noise, norms that scatter by a fifth."""
    random, at = np.random.default_rng(seed), np.arange(1, steps + 1)
    loss = 2 + 8 * at**-0.4 + random.normal(0, 0.03, steps)
    return loss, np.exp(random.normal(0, 0.2, steps)) * (0.5 + 3 * at**-0.5)


def kinds(policy: Policy, loss: np.ndarray, norm: np.ndarray, checkpoints=lambda: (0,)) -> list[str]:
    steps = enumerate(zip(loss.tolist(), norm.tolist(), strict=True), start=1)
    return [policy.decide(step, one, other, checkpoints).kind for step, (one, other) in steps]


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_noise_around_a_falling_loss_is_no_spike(seed):
    assert set(kinds(Policy(SpikeConfig()), *curve(seed, 600))) == {"go"}


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(200, 290), st.sampled_from(["loss", "norm", "nan", "inf", "norm nan"]))
def test_a_spike_is_seen_at_its_step_and_nothing_after_it(seed, at, what):
    loss, norm = curve(seed, 300)
    if what == "loss":
        loss[at] += 1.5
    elif what == "norm":
        norm[at] *= 12
    else:
        (norm if "norm" in what else loss)[at] = math.inf if what == "inf" else math.nan
    found = kinds(Policy(SpikeConfig()), loss, norm)
    assert [step for step, kind in enumerate(found) if kind != "go"] == [at] and found[at] == "skip"


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(0, 3))
def test_nan_is_seen_at_the_very_first_step_and_poisons_no_statistics(seed, at):
    loss, norm = curve(seed, 200)
    loss[at] = math.nan
    policy = Policy(SpikeConfig())
    found = kinds(policy, loss, norm)
    assert found[at] == "skip" and set(found[:at] + found[at + 1 :]) <= {"go"}
    assert json.loads(json.dumps(policy.state_dict(), allow_nan=False)) == policy.state_dict()


@settings(max_examples=5, deadline=None)
@given(SEEDS)
def test_a_slow_rise_without_a_spike_is_a_divergence_that_skipping_is_not_tried_on(seed):
    loss, norm = curve(seed, 600)
    loss[300:] += np.linspace(0, 1.5, 300)
    found = kinds(Policy(SpikeConfig()), loss, norm)
    assert set(found[:300]) == {"go"} and next(kind for kind in found if kind != "go") == "rollback"


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 199), st.floats(0.02, 0.3))
def test_a_resumed_policy_decides_as_the_one_that_went_on(seed, at, share):
    loss, norm = curve(seed, 200)
    loss[np.random.default_rng(seed + 1).random(200) < share] += 5
    config = SpikeConfig(warmup=16, window=32, period=40)
    whole, first = Policy(config), Policy(config)
    expected = kinds(whole, loss, norm)
    head = kinds(first, loss[:at], norm[:at])
    second = Policy(config)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    tail = [second.decide(at + 1 + i, loss[at + i], norm[at + i], lambda: (0,)).kind for i in range(200 - at)]
    assert head + tail == expected and second.state_dict() == whole.state_dict()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=200), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
    st.integers(5, 60), st.booleans(),
)  # fmt: skip
def test_no_measure_is_taken_more_often_in_a_period_than_its_limit_and_milder_ones_come_first(
    bad, skips, rollbacks, lower_lrs, period, has_checkpoints
):
    config = SpikeConfig(skips=skips, rollbacks=rollbacks, lower_lrs=lower_lrs, period=period)
    policy, limits = Policy(config), {"skip": skips, "rollback": rollbacks, "lower_lr": lower_lrs}
    taken: list[str] = []
    for step, one in enumerate(bad, start=1):
        action = policy.decide(step, math.nan if one else 3.0, 1.0, lambda: (0,) if has_checkpoints else ())
        recent = taken[-(period - 1) :] if period > 1 else []
        taken.append(action.kind)
        if action.kind in limits:
            assert recent.count(action.kind) < limits[action.kind]
        if action.kind in ("rollback", "lower_lr"):
            assert has_checkpoints and action.target == 0 and recent.count("skip") == skips
        if action.kind == "stop":
            assert recent.count("skip") == skips
            assert not has_checkpoints or recent.count("lower_lr") == lower_lrs
        assert (action.kind == "go") == (not one)
    assert policy.lr_factor == pytest.approx(config.lr_factor ** taken.count("lower_lr"))


def test_each_further_rollback_in_a_period_goes_further_back():
    policy = Policy(SpikeConfig(measures=("rollback", "stop"), rollbacks=5, back=2))
    targets = [policy.decide(100, math.nan, 1.0, lambda: range(0, 100, 10)).target for _ in range(6)]
    assert targets == [80, 60, 40, 20, 0, None]


def test_measures_out_of_order_or_a_warm_up_beyond_the_window_are_refused():
    with pytest.raises(ValidationError, match="in this order"):
        SpikeConfig(measures=("rollback", "skip"))
    with pytest.raises(ValidationError, match="warmup 64 is more"):
        SpikeConfig(window=16)


# A small real run: the loop below does what the policy says.

SMALL = ModelConfig(layers=2, hidden=32, heads=2, vocab=64, context=32)
STEPS, EVERY, LR = 140, 10, 0.01
WATCH = SpikeConfig(window=32, warmup=16, drift_window=8, skips=2, skip_after=10, lr_factor=0.1)
Batch = dict[str, torch.Tensor]


def batch(number: int) -> Batch:
    """Sequences in which each id follows from the one before, but for a fifth."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(64, (16, 33), generator=generator)
    follows = torch.rand(16, 33, generator=generator) < 0.8
    for at in range(1, 33):
        ids[:, at] = torch.where(follows[:, at], (ids[:, at - 1] * 5 + 3) % 64, ids[:, at])
    return {"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous(), "weight": torch.ones(1)}


def weighted_loss(output: torch.Tensor, rows: Batch) -> tuple[torch.Tensor, torch.Tensor, dict]:
    return output.sum() * rows["weight"][0], torch.tensor(output.numel()), {}


def poison(first: int, last: int, weight: float = 1000.0) -> Callable[[int, Batch], Batch]:
    """Random labels whose gradient counts a thousandfold."""

    def harm(number: int, rows: Batch) -> Batch:
        if not first <= number <= last:
            return rows
        labels = torch.randint(64, rows["labels"].shape, generator=torch.Generator().manual_seed(number))
        return {**rows, "labels": labels, "weight": torch.tensor([weight])}

    return harm


def train(
    root: Path,
    config: SpikeConfig | None,
    harm: Callable[[int, Batch], Batch] = lambda number, rows: rows,
    lr: Callable[[int], float] = lambda step: LR,
) -> tuple[float, list[dict], Trainer]:
    """Train; answer held-out loss, flight log and trainer. Without a config whatever comes is trained on."""
    optimizer = OptimizerConfig(lr=LR, clip=0.0, weight_decay=0.0)
    trainer = Trainer(build(SMALL, torch.float32, seed=5), optimizer, ScheduleConfig(steps=STEPS, kind="constant"))
    saver = Saver(root, CheckpointConfig(last=4), lambda event: None, {})
    policy, events = Policy(config or SpikeConfig()), []
    batches = 0  # taken from the data so far: runs ahead of the steps where batches were left out

    def save() -> None:
        loop = {"batches": batches, "policy": policy.state_dict()}
        saver.save(trainer.step_count, trainer.state, files={"loop.json": json.dumps(loop)})

    while trainer.step_count < STEPS:
        step, action = trainer.step_count + 1, Action("go")

        def accept(row: dict[str, float]) -> bool:
            nonlocal action
            action = policy.decide(step, row["loss"], row["grad_norm"], saver.steps)  # noqa: B023
            return action.kind == "go"

        now = lr(step) * policy.lr_factor
        trainer.optimizer_config = optimizer.model_copy(update={"lr": now})
        trainer.step([harm(batches, batch(batches))], weighted_loss, accept if config else None)
        batches += 1
        saver.poll()
        if action.kind != "go":
            events.append(action.event(step))
        if action.kind == "stop":
            break
        if action.target is not None:
            folder = checkpoint.place(root, action.target)
            trainer.load(folder)
            policy.rewind(json.loads((folder / "loop.json").read_text())["policy"])
            saver.forget_after(action.target)
            batches += action.skip_after
            save()  # in the place of the one it went back to: a run killed now does not meet the same batches
        elif step % EVERY == 0:
            save()
    saver.wait()
    heldout = [batch(number) for number in range(10_000, 10_004)]
    return trainer.evaluate(heldout, weighted_loss)["loss"], events, trainer


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> float:
    loss, events, _ = train(tmp_path_factory.mktemp("clean"), WATCH)
    assert not events and loss < 2.5, "it has learnt something that can be lost"
    return loss


def adam_steps(of: Trainer) -> set[float]:
    optimizer = of.optimizer.chained_optimizers[0].optimizer
    return {float(state["step"]) for state in optimizer.state.values()}


@pytest.mark.parametrize("weight", [1000.0, math.nan])
def test_a_bad_batch_is_skipped_and_the_optimiser_does_not_count_it(weight, clean, tmp_path):
    loss, events, trainer = train(tmp_path, WATCH, poison(70, 70, weight))
    assert [(event["step"], event["what"]) for event in events] == [(71, "skip")]
    assert abs(loss - clean) < 0.05 and trainer.step_count == STEPS
    assert adam_steps(trainer) == {STEPS - 1}, "bias correction counts updates, not batches"


def test_the_same_batch_without_a_policy_does_lasting_harm(clean, tmp_path):
    loss, _, _ = train(tmp_path, None, poison(70, 70))
    assert loss > clean + 0.2


def test_many_bad_batches_are_left_out_from_a_checkpoint_on(clean, tmp_path):
    loss, events, trainer = train(tmp_path, WATCH, poison(70, 76))
    assert [(event["what"], event.get("to")) for event in events] == [("skip", None)] * 2 + [("rollback", 70)]
    assert abs(loss - clean) < 0.05
    newest = checkpoint.newest_good(tmp_path, pytest.fail)
    assert json.loads((newest / "loop.json").read_text())["batches"] == STEPS + 3 + 10, "3 seen, 10 left out"


def test_an_exploding_learning_rate_is_lowered_until_the_run_recovers(clean, tmp_path):
    loss, events, _ = train(tmp_path / "met", WATCH, lr=lambda step: LR if step < 60 else 100 * LR)
    assert {"rollback", "lower_lr"} <= {event["what"] for event in events} and "stop" not in {e["what"] for e in events}
    assert abs(loss - clean) < 0.2
    unmet, _, _ = train(tmp_path / "unmet", None, lr=lambda step: LR if step < 60 else 100 * LR)
    assert not unmet < clean + 1


def test_what_nothing_helps_against_stops_the_run_with_its_reason(tmp_path):
    _, events, trainer = train(tmp_path, WATCH, poison(25, 10**6, math.nan))
    assert events[-1]["what"] == "stop" and "loss is nan" in events[-1]["why"] and trainer.step_count < STEPS
    taken = [event["what"] for event in events]
    assert taken == ["skip"] * 2 + ["rollback"] * 2 + ["lower_lr"] * 3 + ["stop"]


def test_a_steep_gradient_under_a_usual_loss_is_skipped_at_most() -> None:
    """With small batches a few norms in a thousand are far out; a run must not go back for them."""
    policy = Policy(SpikeConfig(skips=2))
    for step in range(1, 101):
        policy.decide(step, 3.0 + 0.01 * (step % 7), 1.0 + 0.05 * (step % 5), lambda: [50])
    kinds = [policy.decide(100 + i, 3.0, 20.0, lambda: [50]).kind for i in range(1, 5)]
    assert kinds == ["skip", "skip", "go", "go"]
    assert policy.decide(105, 9.0, 20.0, lambda: [50]).kind == "rollback"
