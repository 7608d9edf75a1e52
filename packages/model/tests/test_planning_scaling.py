"""Scaling laws: the published tables come back, and what must be true of any law is true of each."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_model.planning import overtraining, repetition, validation
from headwater_model.planning.scaling import (
    BESIROGLU,
    CHINCHILLA_1,
    CHINCHILLA_3,
    CHINCHILLA_3_PRINTED,
    KAPLAN,
    LAWS,
    PARAMETRIC,
    Allocation,
    by_ratio,
    limited_by_data,
)

budgets = st.floats(1e17, 1e28)
laws = st.sampled_from(sorted(LAWS))
parametric = st.sampled_from(sorted(PARAMETRIC))
CONTRADICTORY = {  # the paper against itself, see scaling.py: (law, size) -> which column
    ("chinchilla-1", "67B"), ("chinchilla-2", "67B"), ("chinchilla-3-table", "67B"),
    ("chinchilla-3-table", "175B"), ("chinchilla-3-table", "280B"),
}  # fmt: skip


@pytest.mark.parametrize("law", ["chinchilla-1", "chinchilla-2", "chinchilla-3-table"])
def test_the_published_tables_come_back_within_one_percent(law: str) -> None:
    rows = validation.chinchilla(law)
    assert len(rows) == 9
    for flops, tokens in rows:
        if (law, flops.what) not in CONTRADICTORY:
            assert abs(flops.deviation) < 0.01 and abs(tokens.deviation) < 0.01, (flops, tokens)


def test_rows_left_out_contradict_themselves_or_the_line_of_the_others() -> None:
    for law in ("chinchilla-1", "chinchilla-2", "chinchilla-3-table"):
        for (flops, tokens), row in zip(
            validation.chinchilla(law), validation.published()["chinchilla"][law], strict=True
        ):
            if (law, flops.what) in CONTRADICTORY:
                itself = row[1] / (6 * row[0] * row[2]) - 1
                assert max(abs(itself), abs(flops.deviation), abs(tokens.deviation)) > 0.02


def test_other_figures_of_the_papers_follow_from_the_same_constants() -> None:
    assert CHINCHILLA_1.optimum(1e21).parameters == pytest.approx(2.86e9, rel=0.005)  # section D.4
    assert KAPLAN.optimum(1e21).parameters == pytest.approx(4.68e9, rel=0.005)  # section D.4
    assert CHINCHILLA_3.optimum(5.76e23).parameters == pytest.approx(40e9, rel=0.02)  # figure 4
    assert CHINCHILLA_3_PRINTED.optimum(5.76e23).parameters < 33e9  # two digits are too few
    assert BESIROGLU.tokens_for(70e9) / 70e9 == pytest.approx(20, rel=0.1)  # arXiv:2404.10102: about 20


def test_appendix_f_gives_its_table_without_the_vocabulary() -> None:
    checks = {check.what: check.deviation for check in validation.appendix_f()}
    assert {name for name, deviation in checks.items() if abs(deviation) > 0.01} == {"1.1B"}


@given(laws, budgets, st.floats(1.01, 1e6))
def test_a_larger_budget_never_buys_a_smaller_model_or_fewer_tokens(name: str, flops: float, times: float) -> None:
    small, large = LAWS[name].optimum(flops), LAWS[name].optimum(flops * times)
    assert large.parameters > small.parameters and large.tokens > small.tokens


@given(laws, budgets)
def test_an_optimum_spends_the_budget_and_lies_on_the_laws_line(name: str, flops: float) -> None:
    law, best = LAWS[name], LAWS[name].optimum(flops)
    assert best.flops == pytest.approx(flops)
    assert law.tokens_for(best.parameters) == pytest.approx(best.tokens, rel=1e-6)
    assert law.parameters_for(best.tokens) == pytest.approx(best.parameters, rel=1e-6)


@given(parametric, budgets, st.floats(0.1, 10))
def test_no_other_size_has_a_lower_loss_at_the_same_budget(name: str, flops: float, fraction: float) -> None:
    law, best = PARAMETRIC[name], PARAMETRIC[name].optimum(flops)
    other = Allocation(best.parameters * fraction, best.tokens / fraction)
    assert law.loss(*other) >= law.loss(*best) * (1 - 1e-12)


@given(parametric, budgets)
def test_the_flops_to_reach_a_loss_undo_the_optimum(name: str, flops: float) -> None:
    law = PARAMETRIC[name]
    assert law.flops_to_reach(law.loss(*law.optimum(flops))) == pytest.approx(flops, rel=1e-4)


def test_repetition_gives_the_authors_own_numbers() -> None:
    # huggingface/datablations, README.md, "Parametric fit"
    assert repetition.loss(6.34e9, 242e9, 25e9) == pytest.approx(2.2256440889984477, abs=1e-12)
    assert repetition.loss(8.67e9, 178e9, 25e9) == pytest.approx(2.2269634075087867, abs=1e-12)
    best = repetition.optimum(6 * 8.67e9 * 178e9, 25e9)
    assert best.tokens == pytest.approx(227e9, rel=0.005) and best.parameters == pytest.approx(6.8e9, rel=0.005)
    assert best.tokens / 25e9 == pytest.approx(9.1, abs=0.05)


@given(st.floats(1e6, 1e12), st.floats(1, 1000), st.floats(1, 50))
def test_repeated_tokens_are_worth_less_than_new_ones_and_never_nothing(
    unique: float, epochs: float, more: float
) -> None:
    worth = repetition.effective(unique, unique * epochs, repetition.TOKEN_DECAY)
    assert worth <= unique * epochs * (1 + 1e-12)
    assert worth <= unique * (1 + repetition.TOKEN_DECAY) * (1 + 1e-12)
    assert repetition.effective(unique, unique * epochs * more, repetition.TOKEN_DECAY) >= worth * (1 - 1e-12)


def test_four_epochs_are_nearly_as_good_as_new_tokens_and_forty_are_not() -> None:
    # arXiv:2305.16264, section 1
    few, many = (repetition.effective(1.0, epochs, repetition.TOKEN_DECAY) / epochs for epochs in (4, 40))
    assert few > 0.9 and many < 0.5


def test_less_data_asks_for_a_smaller_model_trained_for_more_epochs() -> None:
    plenty, scarce = repetition.optimum(1e22, 1e13), repetition.optimum(1e22, 1e10)
    assert scarce.tokens / 1e10 > 4 and scarce.parameters < plenty.parameters


@given(budgets)
def test_leaving_the_optimum_costs_loss_or_training_and_pays_only_when_served(flops: float) -> None:
    budget = {row.fraction: row for row in overtraining.same_budget(BESIROGLU, flops)}
    assert all(row.loss_added > 0 for fraction, row in budget.items() if fraction != 1)
    same = [row for row in overtraining.same_loss(BESIROGLU, flops) if row.fraction < 1]
    assert all(row.training_added > 0 and row.break_even > 0 for row in same)
    assert [row.break_even for row in same] == sorted(row.break_even for row in same)


def test_at_the_break_even_both_models_have_cost_the_same() -> None:
    flops = 1e22
    best = BESIROGLU.optimum(flops)
    for row in overtraining.same_loss(BESIROGLU, flops):
        if row.fraction < 1 and math.isfinite(row.break_even):
            ours = row.allocation.flops + 2 * row.allocation.parameters * row.break_even
            assert ours == pytest.approx(flops + 2 * best.parameters * row.break_even)
            assert BESIROGLU.loss(*row.allocation) == pytest.approx(BESIROGLU.loss(*best))


@given(st.floats(1.9, 3.0), st.floats(1e6, 1e16), st.floats(1.5, 100))
def test_the_more_is_served_the_smaller_the_cheapest_model_of_a_loss(loss: float, served: float, times: float) -> None:
    def cost(model: Allocation) -> float:
        return model.flops + 2 * model.parameters * served

    best = overtraining.lifetime_optimum(BESIROGLU, loss, served)
    assert BESIROGLU.loss(*best) == pytest.approx(loss, rel=1e-6)
    for factor in (0.97, 1.03):
        other = best.parameters * factor
        assert cost(best) <= cost(Allocation(other, BESIROGLU.tokens_to_reach(loss, other))) * (1 + 1e-9)
    more = overtraining.lifetime_optimum(BESIROGLU, loss, served * times)
    assert more.parameters <= best.parameters * (1 + 1e-6)


def test_scarce_data_make_the_rule_of_thumb_larger_not_longer() -> None:
    wanted = by_ratio(1e20)
    assert limited_by_data(1e20, wanted, wanted.tokens, 4) == wanted
    limited = limited_by_data(1e20, wanted, wanted.tokens / 100, 4)
    assert limited.tokens == wanted.tokens / 25 and limited.flops == pytest.approx(1e20)
