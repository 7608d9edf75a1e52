"""Every model on the same held-out prompts; best-of-N; people's win rates."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.cli import main
from headwater_align.outcome import best_of_n
from headwater_align.outcome.people import win_rates


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.integers(1, 6))
def test_best_of_n_is_the_mean_over_all_draws(rewards, n):
    n = min(n, len(rewards))
    other = np.arange(len(rewards)) ** 2 + 1.0  # any quantity beside the reward
    drawn = list(itertools.combinations(range(len(rewards)), n))
    best = [max(rewards[i] for i in some) for some in drawn]
    beside = [
        np.mean([other[i] for i in range(len(rewards)) if rewards[i] == top and i in some])
        for some, top in zip(drawn, best, strict=True)
    ]
    weights = best_of_n.weights(np.array(rewards, float), n)
    assert weights.sum() == pytest.approx(1)
    assert weights @ np.array(rewards) == pytest.approx(np.mean(best))
    if len(set(rewards)) == len(rewards):
        assert weights @ other == pytest.approx(np.mean(beside))


def test_kl_of_best_of_n():
    # Uniform over 1,000 answers of different rewards: P(best of n is the i-th) = (i/1000)^n - ((i-1)/1000)^n.
    i, n = np.arange(1, 1001), 4
    p = (i / 1000) ** n - ((i - 1) / 1000) ** n
    assert best_of_n.kl(n) == pytest.approx((p * np.log(p * 1000)).sum(), abs=5e-3)
    assert best_of_n.kl(1) == 0


@pytest.fixture(scope="module")
def outcome(sft_model, reward_model, instructions, base_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcome")
    inputs = {"sft": sft_model, "reward": reward_model, "instructions": instructions, "base": base_model}
    given = [part for name, path in inputs.items() for part in ("--in", f"{name}={path}")]
    options = ["prompts=12", "best_of=[2, 4]", "max_prompt_length=60", "max_response_length=16", "dtype=float32",
               "order=[base, sft]"]  # fmt: skip
    sets = [part for option in options for part in ("--set", option)]
    where = ["--out", f"{folder}/out", "--work", f"{folder}/work"]
    assert main(["outcome", *given, *where, *sets]) == 0
    return folder / "out", [*given, *sets]


def test_figures_follow_from_the_samples(outcome):
    out, _ = outcome
    metrics = json.loads((out / "metrics.json").read_text())
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert list(metrics["models"]) == sorted(["base", "best-of-2", "best-of-4", "sft"])
    assert metrics["prompts"] == 12
    for name in ("base", "sft"):
        own = [s for s in samples if s["model"] == name]
        found = metrics["models"][name]
        assert len(own) == 24
        assert found["reward"] == pytest.approx(np.mean([s["reward"] for s in own]))
        assert found["kl"] == pytest.approx(np.mean([s["kl"] for s in own]))
        assert found["reward_low"] <= found["reward"] <= found["reward_high"]
    sft = metrics["models"]["sft"]
    assert sft["kl"] == 0 and sft["reward_gain"] == 0 and sft["win_rate"] == pytest.approx(0.5)
    assert metrics["models"]["base"]["kl"] > 1  # it does not end its answers
    rewards = [metrics["models"][name]["reward"] for name in ("best-of-2", "best-of-4")]
    assert rewards[0] < rewards[1] and metrics["models"]["best-of-4"]["win_rate"] > 0.5
    rows = list(csv.DictReader((out / "curve.csv").open()))
    assert [(r["run"], r["at"]) for r in rows if r["run"] == "best-of-N"] == [("best-of-N", "2"), ("best-of-N", "4")]
    assert float(rows[0]["sqrt_kl"]) == pytest.approx(math.sqrt(math.log(2) - 0.5))


def test_the_same_answers_again_from_another_batch_size(outcome, tmp_path):
    out, arguments = outcome
    where = ["--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
    assert main(["outcome", *arguments, *where, "--set", "batch=7"]) == 0
    one, two = ((folder / "samples.jsonl").read_text().splitlines() for folder in (out, tmp_path / "out"))
    assert [json.loads(s)["answer"] for s in one] == [json.loads(s)["answer"] for s in two]


def test_a_model_of_another_tokenizer_is_refused(outcome, base_model, tmp_path, capsys):
    import shutil

    from headwater_align._contracts import manifest

    other = tmp_path / "other"
    shutil.copytree(base_model, other)
    raw = json.loads((other / "tokenizer.json").read_text())
    raw["added_tokens"][0]["content"] = "<|finis|>"
    (other / "tokenizer.json").write_text(json.dumps(raw))
    manifest.write(other, manifest.Manifest("export", 1, "test", "0", "export", {}))
    where = ["--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
    assert main(["outcome", *outcome[1], "--in", f"strange={other}", *where]) == 1
    assert "another tokenizer than the SFT model's" in capsys.readouterr().err


def test_people_s_win_rates(tmp_path):
    def record(prompt, policies, ranks):
        return {"prompt": [{"role": "user", "content": prompt}], "policies": policies, "ranks": ranks}

    records = [
        record("a", ["ppo", "sft", "dpo"], [1, 2, 2]),
        record("a", ["sft", "ppo"], [1, 2]),
        record("b", ["ppo", "sft"], [1, 2]),
        record("c", ["dpo", None], [1, 2]),
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    rates = win_rates([tmp_path], "sft", seed=1)
    assert rates["ppo"]["people_win_rate"] == pytest.approx((0.5 + 1) / 2)  # by prompt: a 1/2, b 1
    assert rates["ppo"]["people_comparisons"] == 3
    assert rates["dpo"]["people_win_rate"] == 0.5 and set(rates) == {"ppo", "dpo"}
