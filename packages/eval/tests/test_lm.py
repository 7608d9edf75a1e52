"""Log-likelihoods: equal to sums by hand, whatever the batching, windows and sharing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from headwater_eval._contracts.errors import UserError
from headwater_eval.lm import Decoding, HeadwaterLM, decoding

tokens = st.lists(st.integers(0, 255), min_size=1, max_size=70)
fixed_model = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def by_hand(bigram, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Sum over the pairs of neighbours: what a bigram model says, without windows or batches."""
    ids = [context[-1], *continuation]
    steps = list(zip(ids, ids[1:], strict=False))
    greedy = all(int(bigram.table[a].argmax()) == b for a, b in steps)
    return sum(float(bigram.table[a, b]) for a, b in steps), greedy


@fixed_model
@given(pairs=st.lists(st.tuples(tokens, tokens), min_size=1, max_size=12))
def test_scores_equal_the_sum_by_hand_whatever_the_window(bigram, pairs) -> None:
    found = HeadwaterLM(bigram).score(pairs)
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


def test_a_prompt_is_encoded_once_for_all_its_choices(bigram, monkeypatch) -> None:
    encoded = []
    encode = bigram.encode
    monkeypatch.setattr(bigram, "encode", lambda text: encoded.append(text) or encode(text))
    requests = [Instance("loglikelihood", {}, ("the cat", f" {word}"), 0) for word in ("sat", "ran", "is")]
    HeadwaterLM(bigram).loglikelihood(requests)
    assert encoded.count("the cat") == 1


def test_nothing_is_as_likely_as_can_be(bigram) -> None:
    assert HeadwaterLM(bigram).score([(list(b"the"), [])]) == [(0.0, True)]


@pytest.mark.parametrize("options, expected", [
    ({}, Decoding(256)),
    ({"until": "\n", "max_gen_toks": 5}, Decoding(5, ("\n",))),
    ({"until": ["a", ""], "max_new_tokens": 7, "do_sample": False, "temperature": 0.8}, Decoding(7, ("a",))),
    ({"temperature": 0.8, "top_k": 10, "top_p": 0.9}, Decoding(256, (), 0.8, 10, 0.9)),
    ({"do_sample": True}, Decoding(256, (), 1.0)),
    ({"do_sample": True, "temperature": 0.0}, Decoding(256)),
    ({"until": None, "temperature": None, "top_k": None, "top_p": None}, Decoding(256)),
])  # fmt: skip
def test_generation_arguments_mean_what_lm_eval_means_by_them(options: dict, expected: Decoding) -> None:
    assert decoding(options, 256) == expected


@pytest.mark.parametrize("options", [{"max_gen_toks": 0}, {"temperature": -1}, {"top_p": 1.5}, {"top_k": -2}])
def test_arguments_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match="out of its range"):
        decoding(options, 256)


def test_a_sample_asked_for_again_is_another_one_and_the_same_in_the_next_run(bigram) -> None:
    options = {"do_sample": True, "max_gen_toks": 8}
    requests = [Instance("generate_until", {}, ("th", options), 0)] * 4 + [Instance("generate_until", {}, ("x", {}), 1)]
    texts = HeadwaterLM(bigram).generate_until(requests)
    assert len(set(texts[:4])) > 1
    assert HeadwaterLM(bigram).generate_until(requests[::-1])[::-1][4] == texts[4]
    assert HeadwaterLM(bigram).generate_until(requests) == texts


def test_more_new_tokens_than_the_context_holds_leave_half_of_it_to_the_prompt(bigram) -> None:
    requests = [Instance("generate_until", {}, ("the cat sat on the mat", {"max_gen_toks": 500}), 0)]
    (text,) = HeadwaterLM(bigram).generate_until(requests)
    assert len(text) == bigram.context // 2
