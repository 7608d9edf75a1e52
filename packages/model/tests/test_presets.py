"""Published models have their published sizes, and a plan can start from one."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from headwater_model import cli, plan, presets
from headwater_model._contracts.config import resolved
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig, PlanConfig
from headwater_model.facts import Facts
from headwater_model.planning.shapes import Shape

PLENTY = Facts(vocabulary=4071, train_tokens=10**13, heldout_tokens=1, heldout_bytes=1)


@pytest.mark.parametrize("name", presets.presets())
def test_the_count_is_the_published_one(name: str) -> None:
    preset, model = presets.find(name), presets.load(name)
    assert abs(model.parameters - preset.parameters) <= preset.tolerance * preset.parameters
    assert preset.tolerance < 0.06 and ("arXiv" in preset.source or "Radford" in preset.source)


@pytest.mark.parametrize("name", ["gpt3-13b", "neox-20b", "opt-6.7b", "llama3-70b"])
def test_the_planner_of_layouts_counts_the_same(name: str) -> None:
    model = presets.load(name)
    shape = Shape.of(model)
    assert (shape.parameters, shape.matrix_parameters) == (model.parameters, model.matrix_parameters)
    assert shape.flops_per_token() == model.flops_per_token


def test_a_plan_pins_all_of_a_preset_but_vocabulary_and_context() -> None:
    made = plan.make(PlanConfig(preset="opt-125m", budget={"flops": 1e19}, context=256), PLENTY)
    expected = presets.load("opt-125m").model_copy(update={"vocab": 4096, "context": 256})
    assert ModelConfig(**made["model"]) == expected


def test_fields_of_a_plan_override_its_presets() -> None:
    given = {"layers": 3, "ffn": None, "position": "alibi", "hidden": 512, "heads": 8}
    config = PlanConfig(preset="llama1-7b", model=given, budget={"flops": 1e18})
    model = ModelConfig(**plan.make(config, PLENTY)["model"])
    assert (model.layers, model.ffn_width, model.position, model.norm_eps) == (3, 1408, "alibi", 1e-6)
    assert PlanConfig(**resolved(config)) == config


def test_a_preset_is_part_of_the_resolved_config() -> None:
    assert resolved(PlanConfig(preset="neox-20b"))["model"]["rope_share"] == 0.25


def test_an_unknown_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean gpt2-124m"):
        presets.load("gpt2-124")
    with pytest.raises(ValidationError, match="did you mean llama3-8b"):
        PlanConfig(preset="llama3_8b")


def test_layouts_of_a_mixture_of_experts_are_refused_in_one_line() -> None:
    hardware = {"device": "h100-sxm", "devices": 8}
    with pytest.raises(UserError, match="nothing for models with experts"):
        plan.make(PlanConfig(budget={"flops": 1e19}, model={"experts": 8}, hardware=hardware), PLENTY)


def test_the_command_shows_every_preset(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["presets"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in presets.presets()) and "20,554,567,680" in shown
    assert cli.main(["presets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["neox-20b"]["counted"] == 20554567680
