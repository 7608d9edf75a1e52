from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align._contracts.config import parse
from headwater_align._contracts.errors import UsageError
from headwater_align.mixtures.allocation import allocate, shares
from headwater_align.mixtures.config import Mixture


def mixture(**values):
    return parse(Mixture, values, "mixture")


def test_shares_are_t5_s_examples_proportional_ones_with_a_limit():
    # min(e, K) with K = 30: 10, 30, 30 of 70 (arXiv:1910.10683, section 3.5.2)
    assert shares({"a": 10, "b": 30, "c": 900}, mixture(cap=30)) == {
        "a": Fraction(1, 7), "b": Fraction(3, 7), "c": Fraction(3, 7)
    }  # fmt: skip


def test_suites_have_fixed_rates_and_mix_by_size_within():
    suites = {
        "flan": {"rate": 4, "members": ["a", "b"], "cap": 60},
        "cot": {"rate": 1, "members": ["c"]},
    }
    assert shares({"a": 20, "b": 500, "c": 7}, mixture(suites=suites)) == {
        "a": Fraction(4, 5) * Fraction(20, 80), "b": Fraction(4, 5) * Fraction(60, 80), "c": Fraction(1, 5)
    }  # fmt: skip


def test_without_rates_everything_comes_once():
    sizes = {"a": 3, "b": 17, "c": 29}
    assert allocate(sizes, mixture()) == (sizes, sizes)


def test_without_a_total_the_scarcest_member_sets_it_and_nothing_is_repeated():
    wanted, given = allocate({"a": 100, "b": 10}, mixture(rates={"a": 3, "b": 1}))
    assert wanted == given == {"a": 30, "b": 10}
    assert allocate({"a": 100, "b": 10}, mixture(rates={"a": 3, "b": 1}, max_epochs=2.5))[1] == {"a": 75, "b": 25}


def test_a_total_beyond_what_there_is_shows_in_wanted_against_given():
    wanted, given = allocate({"a": 100, "b": 10}, mixture(rates={"a": 1, "b": 1}, total=80))
    assert (wanted, given) == ({"a": 40, "b": 40}, {"a": 40, "b": 10})


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 500), st.integers(1, 9)), min_size=1),
    st.integers(0, 3000),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_wanted_rows_add_up_to_the_total_and_nothing_gives_more_than_its_epochs(members, total, epochs):
    sizes = {name: size for name, (size, _) in members.items()}
    rates = {name: rate for name, (_, rate) in members.items()}
    wanted, given = allocate(sizes, mixture(rates=rates, total=total, max_epochs=epochs))
    whole = sum(wanted.values())
    if total:
        assert whole == total
    else:
        assert wanted == given
    for name, share in shares(sizes, mixture(rates=rates)).items():
        assert abs(wanted[name] - share * whole) < 1
        assert given[name] == min(wanted[name], int(sizes[name] * epochs))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rates": {"a": 1}}, "b has no rate"),
        ({"rates": {"a": 1, "b": 1, "z": 1}}, "z takes no part; there are a, b"),
        ({"suites": {"s": {"rate": 1, "members": ["a"]}}}, "b has no rate"),
    ],
)
def test_rates_that_leave_something_out_are_refused(values, said):
    with pytest.raises(UsageError, match=said):
        allocate({"a": 5, "b": 5}, mixture(**values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rates": {"a": 1}, "suites": {"s": {"rate": 1, "members": ["a"]}}}, "exclude each other"),
        ({"rates": {"a": 0}}, "above 0"),
        ({"kinds": {"zero_shot": 0}}, "one of them above 0"),
        ({"shots": [3, 2]}, "fewest and most"),
        ({"suites": {s: {"rate": 1, "members": ["a"]} for s in "st"}}, "a is in two suites"),
        ({"kinds": {"zeroshot": 1}}, "mixture.kinds"),
    ],
)
def test_a_contradictory_mixture_is_refused(values, said):
    with pytest.raises(UsageError, match=said):
        mixture(**values)
