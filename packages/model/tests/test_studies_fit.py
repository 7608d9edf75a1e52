"""Own scaling laws: what a known law made is found again, with honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model._contracts.errors import UserError
from headwater_model.planning.scaling import Parametric
from headwater_model.studies.fit import Point, fit, frontier, parametric, valleys

BUDGETS = (1e13, 3e13, 1e14, 3e14)


def grid(law: Parametric, noise: float = 0.0, seed: int = 0) -> list[Point]:
    generator = np.random.default_rng(seed)
    found = []
    for budget in BUDGETS:
        for factor in (0.25, 0.5, 1, 2, 4):
            size = law.optimum(budget).parameters * factor
            tokens = budget / 6 / size
            found.append(
                Point(budget, size, tokens, law.loss(size, tokens) * float(np.exp(generator.normal(0, noise))))
            )
    return found


laws = st.builds(
    Parametric,
    st.just("law"),
    st.just("test"),
    st.floats(0.5, 2.5),
    st.floats(100, 1000),
    st.floats(300, 3000),
    st.floats(0.25, 0.45),
    st.floats(0.25, 0.45),
)


@given(laws)
@settings(max_examples=5, deadline=None)
def test_without_noise_the_law_is_found_again(law: Parametric) -> None:
    found = parametric(grid(law))
    here = law.optimum(1e15)
    assert found.loss(*here) == pytest.approx(law.loss(*here), rel=1e-3)
    assert found.alpha == pytest.approx(law.alpha, rel=0.02) and found.beta == pytest.approx(law.beta, rel=0.02)


@given(laws)
@settings(max_examples=10, deadline=None)
def test_the_frontier_has_the_laws_exponent(law: Parametric) -> None:
    power = frontier(valleys(grid(law)))
    assert power.exponent == pytest.approx(law.beta / (law.alpha + law.beta), abs=0.02)


def test_nine_in_ten_intervals_hold_the_loss_of_the_next_run() -> None:
    law = Parametric("law", "test", 1.7, 400.0, 2000.0, 0.34, 0.37)
    inside = 0
    for seed in range(12):
        found = fit(grid(law, 0.004, seed), draws=20, seed=seed)
        here = law.optimum(1e15)
        noise = float(np.exp(np.random.default_rng(1000 + seed).normal(0, 0.004)))
        said = found.loss(*here)
        inside += said.low <= law.loss(*here) * noise <= said.high
    assert inside >= 8  # 10.8 expected


def test_a_budget_whose_losses_only_fall_has_no_valley_and_too_few_runs_are_refused() -> None:
    falling = [Point(1e13, size, 1e6, 5 - np.log(size) / 10 - np.log(size) ** 2 / 100) for size in (1e5, 1e6, 1e7)]
    assert valleys(falling) == []
    with pytest.raises(UserError, match="0 budgets have a minimum between"):
        frontier([])
    with pytest.raises(UserError, match="2 sizes have run, a parabola needs three"):
        valleys(falling[:2])
    with pytest.raises(UserError, match="five constants needs six"):
        parametric(falling)
