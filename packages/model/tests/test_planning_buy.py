"""Build or buy: the sums add up, the verdict follows from them, and what is said to change it does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model import cli
from headwater_model.planning import buy, buy_report
from headwater_model.planning.buy import BuyConfig, UseConfig

uses = st.builds(
    UseConfig, tokens_in=st.floats(1e6, 1e13), tokens_out=st.floats(1e6, 1e13), months=st.floats(1, 60),
    parameters=st.floats(1e8, 1e12), sensitive=st.booleans(),
)  # fmt: skip


@given(uses)
def test_parts_add_up_and_the_verdict_is_the_cheapest_that_is_allowed(use: UseConfig) -> None:
    config = BuyConfig(use=use)
    options = buy.options(config)
    for one in options:
        assert one.total(use.months) == pytest.approx(sum(one.parts.values())) and one.once >= 0
    allowed = [one for one in options if not one.excluded]
    assert buy.verdict(config).name == min(allowed, key=lambda one: one.total(use.months)).name
    assert (options[0].excluded != "") == use.sensitive


@given(uses, st.floats(1, 100))
def test_more_tokens_never_cost_less(use: UseConfig, times: float) -> None:
    more = use.model_copy(update={"tokens_in": use.tokens_in * times, "tokens_out": use.tokens_out * times})
    for one, other in zip(buy.options(BuyConfig(use=use)), buy.options(BuyConfig(use=more)), strict=True):
        assert other.total(use.months) >= one.total(use.months) * (1 - 1e-12)


def test_at_the_break_even_the_option_costs_what_the_api_costs() -> None:
    config = BuyConfig()
    for index, name in ((1, "fine-tune"), (2, "from scratch")):
        times = buy.break_even(config, name)
        assert times is not None
        scaled = buy.replace(config, "use.tokens_in", config.use.tokens_in * times)
        options = buy.options(buy.replace(scaled, "use.tokens_out", config.use.tokens_out * times))
        assert options[index].total(24) == pytest.approx(options[0].total(24), rel=0.01)


@settings(deadline=None, max_examples=10)
@given(uses)
def test_an_assumption_that_changes_the_verdict_does_so_where_it_is_said(use: UseConfig) -> None:
    config = BuyConfig(use=use)
    now = buy.verdict(config).name
    for name, value, at, other in buy.flips(config):
        beyond, before = (at * 1.02, at / 1.02) if at > value else (at / 1.02, at * 1.02)
        if name != "serving.replicas":  # whole numbers jump
            assert buy.verdict(buy.replace(config, name, beyond)).name != now, name
            assert buy.verdict(buy.replace(config, name, before)).name == now, name
        assert other != now


def test_a_needed_loss_sizes_the_own_model_and_an_impossible_one_is_refused(capsys: pytest.CaptureFixture) -> None:
    better, worse = (buy.own_model(BuyConfig(use=UseConfig(loss=loss)))[0] for loss in (2.0, 2.5))
    assert better > worse
    assert cli.main(["buy", "--set", "use.loss=1.5"]) == 1
    assert "no model reaches" in capsys.readouterr().err


def test_every_assumption_is_printed_with_its_meaning_and_source(capsys: pytest.CaptureFixture) -> None:
    rows = buy_report.assumptions(BuyConfig())
    assert len(rows) > 30 and all(meaning and source for _, _, meaning, source in rows)
    assert cli.main(["buy", "--set", "api.usd_in=0.5"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name, *_ in rows) and "Verdict: API" in told and "given" in told


def test_sensitive_data_rule_the_api_out(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["buy", "--json", "--set", "use.sensitive=true"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] != "API" and answer["options"][0]["excluded"]
    assert answer["verdict_if_sensitivity_were_otherwise"] == "API"


def test_an_assumption_that_does_not_exist_is_refused_in_one_line(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["buy", "--set", "api.price=1"]) == 2
    assert cli.main(["buy", "--set", "device.name=h1000"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
