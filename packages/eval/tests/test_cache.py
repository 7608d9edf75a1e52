"""Finished requests: kept, found again, never another model's, and the same bytes however often a run is cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from headwater_eval import cache
from headwater_eval._contracts.errors import UserError
from headwater_eval.cache import CachedLM, RequestCache
from headwater_eval.lm import HeadwaterLM

fixed_model = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)


def choices(*pairs: tuple[str, str]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


PAIRS = [(f"the {animal}", f" {verb}") for animal in ("cat", "dog", "mat") for verb in ("sat", "ran", "is")]


def test_what_is_known_is_not_asked_again_and_is_the_same(bigram, tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    first = CachedLM(HeadwaterLM(bigram), RequestCache(path, "a")).loglikelihood(choices(*PAIRS))
    asked = bigram.asked
    again = CachedLM(HeadwaterLM(bigram), RequestCache(path, "a")).loglikelihood(choices(*PAIRS))
    assert again == first == HeadwaterLM(bigram).loglikelihood(choices(*PAIRS))
    assert asked == len(PAIRS) and bigram.asked == 2 * asked  # the last line's own
    assert all(type(total) is float and type(greedy) is bool for total, greedy in again)


def test_another_model_gets_no_answer_of_the_first(bigram, tmp_path: Path) -> None:
    other = type(bigram)("a dog ran to a mat. " * 5)
    path = tmp_path / "c"
    CachedLM(HeadwaterLM(bigram), RequestCache(path, {"weights": "a"})).loglikelihood(choices(*PAIRS))
    found = CachedLM(HeadwaterLM(other), RequestCache(path, {"weights": "b"})).loglikelihood(choices(*PAIRS))
    one, two = (HeadwaterLM(model).loglikelihood(choices(*PAIRS)) for model in (bigram, other))
    assert found == two != one


def test_each_kind_and_each_argument_of_a_request_counts(bigram, tmp_path: Path) -> None:
    known = RequestCache(tmp_path / "c", "a")
    lm = CachedLM(HeadwaterLM(bigram), known)
    lm.generate_until([Instance("generate_until", {}, ("the", {"max_gen_toks": 4}), 0)])
    for kind, arguments in [
        ("generate_until", ("the", {"max_gen_toks": 5})),
        ("generate_until", ("the", {"max_gen_toks": 4, "until": ["\n"]})),
        ("generate_until", ("th", {"max_gen_toks": 4})),
        ("loglikelihood", ("the", "a")),
        ("loglikelihood_rolling", ("the",)),
    ]:
        before = bigram.asked
        getattr(lm, kind)([Instance(kind, {}, arguments, 0)])
        assert bigram.asked == before + 1, (kind, arguments)


def test_samples_are_kept_one_by_one_and_greedy_texts_once(bigram, tmp_path: Path) -> None:
    drawn = [Instance("generate_until", {}, ("th", {"do_sample": True, "max_gen_toks": 8}), 0)] * 4
    greedy = [Instance("generate_until", {}, ("th", {"max_gen_toks": 8}), 1)] * 3
    lm = CachedLM(HeadwaterLM(bigram), RequestCache(tmp_path / "c", "a"))
    texts = lm.generate_until(drawn + greedy)
    assert bigram.asked == 5 and len(set(texts[:4])) > 1 and len(set(texts[4:])) == 1
    assert lm.generate_until(drawn + greedy) == texts and bigram.asked == 5
    assert HeadwaterLM(bigram).generate_until(drawn) == texts[:4]


texts = st.text(st.characters(exclude_categories=()), max_size=12)


@fixed_model
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=30), st.integers(1, 4), st.booleans())
def test_chunks_hold_every_request_once_and_part_no_context(pairs: list, size: int, shares: bool) -> None:
    names = list(dict.fromkeys(cache._names("loglikelihood", pairs)))
    old, cache.CHUNK = cache.CHUNK, size
    try:
        chunks = cache._chunks(names, shares)
        assert cache._chunks(names[::-1], shares) == chunks
    finally:
        cache.CHUNK = old
    assert sorted(name for chunk in chunks for name in chunk) == sorted(names)
    owners = [{name[1] for name in chunk} for chunk in chunks]
    assert sum(map(len, owners)) == len(set().union(*owners))
    for chunk in chunks:  # it is full before its last context begins, never after
        assert sum(name[1] != chunk[-1][1] for name in chunk) < size


@fixed_model
@given(st.lists(texts, min_size=1, max_size=5))
def test_any_text_is_a_key(tmp_path_factory, words: list[str]) -> None:
    known = RequestCache(tmp_path_factory.mktemp("c") / "c", "a")
    names = cache._names("loglikelihood", [(word, " a") for word in words])
    known.keep({known.key(name): [-1.5, True] for name in names})
    assert set(known.find([known.key(name) for name in names])) == {known.key(name) for name in names}
    known.close()


def test_a_file_that_is_no_cache_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("not a database, but long enough to be read as one " * 50)
    with pytest.raises(UserError, match="no request cache"):
        RequestCache(path, "a")


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from conftest import Bigram
from lm_eval.api.instance import Instance
from headwater_eval import cache
from headwater_eval.lm import HeadwaterLM
cache.CHUNK = 4
bigram = Bigram("the cat sat on the mat. " * 5)
pairs = [(f"the {i}", f" {word}") for i in range(30) for word in ("sat", "ran")]
asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
def pause(done, of):
    print(bigram.asked, flush=True)
    if sys.argv[3] == "slowly":
        time.sleep(0.2)
known = cache.RequestCache(__import__("pathlib").Path(sys.argv[2]), "bigram") if sys.argv[2] else None
print(cache.CachedLM(HeadwaterLM(bigram), known, progress=pause).loglikelihood(asked))
"""


def test_a_killed_run_goes_on_where_it_was_and_ends_in_the_same_numbers(tmp_path: Path) -> None:
    def start(path: str, how: str) -> subprocess.Popen:
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), path, how]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    path = str(tmp_path / "c")
    process = start(path, "slowly")
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    *counts, answers = start(path, "fast").communicate()[0].splitlines()
    assert 0 < int(counts[-1]) <= 60 - 12  # at least three chunks of four were kept
    assert answers == start("", "fast").communicate()[0].splitlines()[-1]
    assert len(json.loads(answers.replace("(", "[").replace(")", "]").lower())) == 60
