"""The plan stage and the budget command: any question leads to a plan, and contradictions to one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headwater_model import cli, plan
from headwater_model._contracts.config import resolved
from headwater_model._contracts.errors import UserError
from headwater_model.config import BudgetConfig, HardwareConfig, ModelConfig, PlanConfig
from headwater_model.facts import Facts
from headwater_model.planning.tables import quantity, short

FACTS = Facts(vocabulary=4071, train_tokens=6_544_866, heldout_tokens=1, heldout_bytes=1)
PLENTY = Facts(vocabulary=4071, train_tokens=10**13, heldout_tokens=1, heldout_bytes=1)


def test_plans_of_the_committed_presets_stay_what_they_were() -> None:
    # configs/tiny.yaml and configs/smoke.yaml on 6,544,866 tokens
    tiny = PlanConfig(
        budget={"flops": 9.5e13}, context=256, batch=16, lr=0.004,
        model={"layers": 4, "hidden": 192, "heads": 3, "tie_embeddings": True},
    )  # fmt: skip
    made = plan.make(tiny, FACTS)
    assert (made["steps"], made["tokens"], made["batch"], made["lr"]) == (1404, 5750784, 16, 0.004)
    assert made["flops"] == 94974611816448
    smoke = PlanConfig(
        budget={"flops": 1.2e12}, context=128, batch=16, lr=0.006,
        model={"layers": 2, "hidden": 96, "heads": 3, "tie_embeddings": True},
    )  # fmt: skip
    assert plan.make(smoke, FACTS)["steps"] == 152


@settings(deadline=None)
@given(st.floats(1e13, 1e22))
def test_a_plan_spends_no_more_than_its_budget_and_names_a_model_that_can_be_built(flops: float) -> None:
    made = plan.make(PlanConfig(budget={"flops": flops}), PLENTY)
    model = ModelConfig(**made["model"])
    assert made["flops"] <= flops and made["tokens"] == made["steps"] * made["batch"] * model.context
    assert made["tokens"] * model.flops_per_token == made["flops"]


def test_tokens_a_size_money_and_days_each_lead_to_a_plan() -> None:
    by_tokens = plan.make(PlanConfig(budget={"tokens": 1e9}), PLENTY)
    assert by_tokens["reasons"]["ratio_tokens"] == pytest.approx(1e9)
    by_size = plan.make(PlanConfig(budget={"parameters": 1e8}), PLENTY)
    assert by_size["reasons"]["matrix_parameters"] == pytest.approx(1e8, rel=0.25)
    a_day = BudgetConfig(days=1, devices=8, device="h100-sxm", utilisation=0.4).total(20)
    assert a_day == pytest.approx(86400 * 8 * 989e12 * 0.4)
    assert BudgetConfig(usd=2.69 * 24 * 8, device="h100-sxm").total(20) == pytest.approx(a_day)
    dearer = BudgetConfig(usd=2.69 * 24 * 8, device="h100-sxm", figures={"usd_per_hour": 2 * 2.69})
    assert dearer.total(20) == pytest.approx(a_day / 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flops": 1e15, "days": 1, "device": "h100-sxm"},
        {"usd": 5},
        {"days": 1, "device": "h1000"},
        {"days": 1, "device": "h100-sxm", "figures": {"speed": 1}},
        {"utilisation": 1.5},
    ],
)
def test_a_budget_that_contradicts_itself_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        BudgetConfig(**wrong)


def test_the_figures_of_a_device_are_part_of_the_resolved_config() -> None:
    config = resolved(PlanConfig(hardware={"device": "a100-80gb", "figures": {"usd_per_hour": 9}}))
    assert config["hardware"]["figures"]["tflops"] == 312 and config["hardware"]["figures"]["usd_per_hour"] == 9
    assert PlanConfig(**config) == PlanConfig(hardware={"device": "a100-80gb", "figures": {"usd_per_hour": 9}})


@given(st.integers(1, 16), st.floats(1e5, 1e9))
def test_heads_pinned_without_a_width_give_a_width_that_they_divide(heads: int, parameters: float) -> None:
    model = plan.shape(PlanConfig(model={"heads": heads}), 4096, parameters)
    assert model.heads == heads and model.head_width % 8 == 0


@given(st.sampled_from([1, 2, 3, 4, 8]), st.floats(1e5, 1e9))
def test_key_and_value_heads_pinned_alone_divide_the_heads_that_the_plan_chooses(kv: int, parameters: float) -> None:
    model = plan.shape(PlanConfig(model={"kv_heads": kv}), 4096, parameters)
    assert model.kv_heads == kv and model.heads % kv == 0 and model.head_width == 64


@given(st.integers(8, 2048).map(lambda n: 2 * n))
def test_a_width_pinned_alone_gets_heads_that_divide_it(hidden: int) -> None:
    model = plan.shape(PlanConfig(model={"hidden": hidden, "layers": 2}), 4096, 1e6)
    assert model.hidden == hidden and model.head_width % 2 == 0


def test_pinned_fields_that_contradict_each_other_are_refused_in_one_line() -> None:
    for pinned in ({"hidden": 200, "heads": 3}, {"heads": 4, "kv_heads": 3}, {"heads": 2.5}):
        with pytest.raises(UserError, match="plan.model") as refused:
            plan.shape(PlanConfig(model=pinned), 4096, 1e6)
        assert "[type=" not in str(refused.value)


def test_hardware_adds_layouts_with_predictions_and_metrics() -> None:
    config = PlanConfig(budget={"flops": 1e19}, hardware=HardwareConfig(device="h100-sxm", devices=16, top=3))
    made = plan.make(config, PLENTY)
    rows = made["layouts"]
    assert list(rows) == sorted(rows) and 1 <= len(rows) <= 3
    best = rows["01"]
    assert best["tensor"] * best["pipeline"] * best["context"] * best["data"] == 16
    assert best["days"] * 86400 * best["tokens_per_second"] == pytest.approx(made["tokens"])
    metrics = plan.metrics(made, ModelConfig(**made["model"]))
    assert metrics["predicted"]["usd"] == best["usd"]


def test_hardware_that_cannot_hold_the_model_is_refused_in_one_line() -> None:
    small = {"device": "l4", "devices": 1, "figures": {"memory_gb": 2}}
    with pytest.raises(UserError, match="none of .* layouts fits"):
        plan.make(PlanConfig(budget={"flops": 1e20}, hardware=small), PLENTY)


def test_reasons_say_what_over_training_and_repetition_do() -> None:
    made = plan.make(PlanConfig(budget={"flops": 1e18}, model={"layers": 4, "hidden": 256, "heads": 4}), PLENTY)
    size = made["reasons"]["size"]
    assert size["of_optimal"] < 1 and size["loss_added"] > 0 and size["break_even_tokens"] > 0
    scarce = plan.make(PlanConfig(budget={"flops": 1e16}), FACTS)["reasons"]["repetition"]
    assert scarce["effective_tokens"] < 4 * FACTS.train_tokens and scarce["loss"] > scarce["loss_with_new_tokens"]
    assert set(made["reasons"]["laws"]) == {"chinchilla-1", "chinchilla-2", "chinchilla-3", "besiroglu", "kaplan"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"model": {}, "batch": 1, "steps": 1, "tokens": 1}', "lr is missing"),
        ("{}", "model, batch, steps, tokens, lr is missing"),
        ('{"model": {"layers": 0}, "batch": 1, "steps": 1, "tokens": 1, "lr": 1}', "layers"),
        ("[", "Expecting value"),
        ("[]", "missing"),
    ],
)
def test_pretrain_refuses_a_plan_without_its_keys_in_one_line(content: str, told: str, tmp_path: Path) -> None:
    from headwater_model.pretrain import read_plan

    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match=told) as refused:
        read_plan(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "question",
    [
        ["--flops", "3e23"],
        ["--days", "30", "--devices", "64"],
        ["--usd", "50k"],
        ["--tokens", "3T"],
        ["--parameters", "7B"],
    ],
)
def test_the_budget_command_answers_every_question(question: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["budget", *question, "--data", "10B", "--served", "1T", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert 6 * answer["parameters"] * answer["tokens"] == pytest.approx(answer["flops"])
    assert len(answer["laws"]) == 5 and answer["cost"]["usd"] > 0 and answer["data"]["epochs"] > 0
    assert cli.main(["budget", *question]) == 0
    assert "chinchilla-2" in capsys.readouterr().out


def test_the_layouts_command_ranks_and_refuses(capsys: pytest.CaptureFixture) -> None:
    shape = ["--layers", "32", "--hidden", "4096", "--heads", "32", "--kv-heads", "8", "--batch", "256"]
    assert cli.main(["layouts", *shape, "--devices", "16", "--tokens", "1T", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["layouts"]
    assert found[0]["days"] > 0 and found[0]["tokens_per_second"] >= found[-1]["tokens_per_second"]
    assert cli.main(["layouts", *shape, "--devices", "16"]) == 0
    assert "GB/s reached" in capsys.readouterr().out
    assert cli.main(["layouts", *shape, "--devices", "1", "--device", "l4"]) == 1
    assert cli.main(["layouts", *shape, "--devices", "1", "--set", "tflops=fast"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


@given(st.floats(1, 9e17))
def test_quantities_are_read_as_they_are_written(value: float) -> None:
    assert quantity(short(value)) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize("wrong", ["", "B", "-3", "0", "nan", "inf", "1e400", "7 B B"])
def test_a_quantity_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        quantity(wrong)
