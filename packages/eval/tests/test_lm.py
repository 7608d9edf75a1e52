"""Log-likelihoods: equal to sums by hand, whatever the batching, windows and sharing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from headwater_eval.lm import HeadwaterLM

tokens = st.lists(st.integers(0, 255), min_size=1, max_size=70)
fixed_model = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def by_hand(bigram, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Sum over the pairs of neighbours: what a bigram model says, without windows or batches."""
    ids = [context[-1], *continuation]
    steps = list(zip(ids, ids[1:], strict=False))
    greedy = all(int(bigram.table[a].argmax()) == b for a, b in steps)
    return sum(float(bigram.table[a, b]) for a, b in steps), greedy


@fixed_model
@given(pairs=st.lists(st.tuples(tokens, tokens), min_size=1, max_size=12), batch=st.sampled_from([1, 40, 4096]))
def test_scores_equal_the_sum_by_hand_whatever_the_batch_and_window(bigram, pairs, batch) -> None:
    found = HeadwaterLM(bigram, batch_tokens=batch).score(pairs)
    for (context, continuation), (total, greedy) in zip(pairs, found, strict=True):
        expected = by_hand(bigram, context, continuation)
        assert total == pytest.approx(expected[0], rel=1e-5) and greedy == expected[1]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100])
def test_a_rolling_text_counts_each_token_and_its_end_once(bigram, length: int, overlap: float) -> None:
    text = ("the cat sat on the mat. " * 5)[:length]
    lm = HeadwaterLM(bigram, overlap=overlap)
    (total,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert total == pytest.approx(by_hand(bigram, [256], [*text.encode(), 256])[0], rel=1e-5)


def test_choices_of_one_token_share_one_row(bigram) -> None:
    question = list(b"Answer:")
    HeadwaterLM(bigram).score([(question, [choice]) for choice in b"ABCDE"])
    assert bigram.rows == 1


def test_a_long_context_is_cut_on_the_left_and_the_continuation_kept(bigram) -> None:
    context, continuation = list(b"x" * 500 + b"the cat"), list(b" sat")
    short = HeadwaterLM(bigram).score([(context[-7:], continuation)])
    assert HeadwaterLM(bigram).score([(context, continuation)]) == short


def test_an_empty_context_is_the_end_of_a_document(bigram) -> None:
    lm = HeadwaterLM(bigram)
    (found,) = lm.loglikelihood([Instance("loglikelihood", {}, ("", "the"), 0)])
    assert found[0] == pytest.approx(by_hand(bigram, [256], list(b"the"))[0], rel=1e-6)


def test_generation_ends_before_the_first_stop_string(bigram) -> None:
    lm = HeadwaterLM(bigram)
    whole, cut = lm.generate_until(
        [
            Instance("generate_until", {}, ("th", {"max_gen_toks": 8}), 0),
            Instance("generate_until", {}, ("th", {"until": [" ", "zz"], "max_gen_toks": 8}), 1),
        ]
    )
    assert len(whole) == 8 and whole.split(" ")[0] == cut
