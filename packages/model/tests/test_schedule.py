"""The learning rate as a function of progress: Megatron's values where Megatron has the curve, no jumps, a floor."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import headwater_model.cpu  # noqa: F401

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from pydantic import ValidationError

from headwater_model.config import ScheduleConfig
from headwater_model.schedule import factor

KINDS = ("constant", "linear", "cosine", "step", "exponential", "inverse_sqrt", "wsd")


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleConfig:
    kind = draw(st.sampled_from(KINDS))
    warmup = draw(st.integers(kind == "inverse_sqrt", 50))
    steps = warmup + draw(st.integers(1, 200))
    milestones = draw(st.sets(st.integers(max(1, warmup), steps), min_size=1, max_size=4))
    return ScheduleConfig(
        kind=kind,
        warmup=warmup,
        steps=steps,
        floor=draw(st.floats(0.01 if kind == "exponential" else 0, 1)),
        decay=draw(st.integers(1, steps - warmup)) if kind == "wsd" else 0,
        decay_shape=draw(st.sampled_from(("sqrt", "linear"))),
        milestones=sorted(milestones) if kind == "step" else [],
    )


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd", "inverse_sqrt"])
@pytest.mark.parametrize(("warmup", "floor"), [(0, 0.0), (7, 0.1)])
def test_curves_that_megatron_has_are_megatrons(kind, warmup, floor):
    warmup = max(warmup, kind == "inverse_sqrt")
    peak, steps, decay = 3e-3, 100, 30 if kind == "wsd" else 0
    ours = ScheduleConfig(kind=kind, warmup=warmup, steps=steps, floor=floor, decay=decay)
    group: dict = {}
    theirs = OptimizerParamScheduler(
        SimpleNamespace(param_groups=[group]),
        init_lr=0.0,
        max_lr=peak,
        min_lr=peak * floor,
        lr_warmup_steps=warmup,
        lr_decay_steps=steps,
        lr_decay_style={"wsd": "WSD", "inverse_sqrt": "inverse-square-root"}.get(kind, kind),
        start_wd=0.0,
        end_wd=0.0,
        wd_incr_steps=steps,
        wd_incr_style="constant",
        wsd_decay_steps=decay or None,
        lr_wsd_decay_style="minus_sqrt",
    )
    for step in range(1, steps + (20 if kind != "inverse_sqrt" else 1)):  # theirs drops to the floor at the end
        theirs.step(1)
        assert peak * factor(ours, step) == pytest.approx(group["lr"], rel=1e-12), step


@settings(max_examples=200, deadline=None)
@given(schedules())
def test_it_rises_to_the_peak_then_never_rises_nor_leaves_floor_and_peak(schedule):
    curve = [factor(schedule, n) for n in range(1, schedule.steps + 20)]
    warm, rest = curve[: schedule.warmup], curve[schedule.warmup :]
    assert curve[0] > 0 or (schedule.floor == 0 and schedule.steps == 1)
    assert all(a < b for a, b in pairwise(warm))
    assert not warm or warm[-1] == 1
    assert all(a >= b - 1e-12 for a, b in pairwise(rest))
    assert all(schedule.floor - 1e-12 <= value <= 1 for value in rest)
    if schedule.kind in ("linear", "cosine", "exponential", "wsd"):
        assert rest[schedule.steps - schedule.warmup - 1] == pytest.approx(schedule.floor)
        assert set(rest[schedule.steps - schedule.warmup :]) == {rest[-1]}


@settings(max_examples=200, deadline=None)
@given(schedules().filter(lambda schedule: schedule.kind != "step"))
def test_it_has_no_jump_where_one_part_meets_the_next(schedule):
    joints = {schedule.warmup, schedule.steps - schedule.decay, schedule.steps} - {0}
    for joint in joints:
        left, right = factor(schedule, joint * (1 - 1e-12)), factor(schedule, joint * (1 + 1e-12))
        assert left == pytest.approx(right, abs=1e-4), (joint, left, right)


def test_steps_drop_by_the_factor_after_each_milestone():
    schedule = ScheduleConfig(kind="step", milestones=[2, 4], factor=0.5, steps=6, floor=0.3)
    assert [factor(schedule, n) for n in range(1, 7)] == [1, 1, 0.5, 0.5, 0.3, 0.3]


def test_a_run_of_one_step_has_a_learning_rate():
    for kind in ("constant", "linear", "cosine"):
        assert factor(ScheduleConfig(kind=kind, steps=1, floor=0.1), 1) > 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "cosine", "warmup": 10, "steps": 10}, "leaves nothing"),
        ({"kind": "wsd", "steps": 10}, "1 to 10 steps of decay"),
        ({"kind": "wsd", "steps": 10, "warmup": 5, "decay": 6, "unit": "tokens"}, "1 to 5 tokens of decay"),
        ({"kind": "exponential"}, "set floor"),
        ({"kind": "inverse_sqrt"}, "set warmup"),
        ({"kind": "step"}, "needs milestones"),
        ({"kind": "step", "milestones": [5, 3]}, "must rise"),
        ({"kind": "step", "milestones": [0]}, "must rise"),
        ({"kind": "step", "milestones": [3], "warmup": 5}, "within the warmup"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_a_line(fields, told):
    with pytest.raises(ValidationError, match=told):
        ScheduleConfig(**fields)
