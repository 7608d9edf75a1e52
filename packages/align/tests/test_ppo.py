"""The stage `ppo` whole, on a tiny model: what it learns, what it writes, what it refuses."""

import csv
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_align.cli import main
from headwater_align.ppo.pretraining_rows import PretrainingRows
from headwater_align.ppo.prompts import prompt_numbers
from headwater_align.ppo.rollouts import Episodes, read_answers, write_answers

IDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def trained(run_ppo, tmp_path_factory):
    return run_ppo(tmp_path_factory.mktemp("ppo"), "--set", "steps=16", "--set", "samples_every=8")


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_it_raises_the_reward_on_prompts_it_was_not_trained_on(trained, ppo_inputs, tmp_path):
    inputs = {"sft": ppo_inputs["policy"], "reward": ppo_inputs["reward"],
              "instructions": ppo_inputs["instructions"], "ppo": trained}  # fmt: skip
    given = [part for name, folder in inputs.items() for part in ("--in", f"{name}={folder}")]
    options = ["prompts=16", "best_of=[]", "max_prompt_length=40", "max_response_length=12", "dtype=float32"]
    sets = [part for option in options for part in ("--set", option)]
    assert main(["outcome", *given, *sets, "--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]) == 0
    ppo = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]["ppo"]
    assert ppo["reward_gain_low"] > 0 and ppo["win_rate_low"] > 0.5 and ppo["kl"] > 0


def test_the_reward_has_mean_zero_and_deviation_one_over_the_references_answers(trained):
    first = rows(trained, "log.jsonl")[0]  # 32 other answers of what is still the reference
    assert abs(first["reward"]) < 0.6
    assert 0.6 < first["reward_deviation"] < 1.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_the_first_step_kl_is_zero_and_the_ratio_one(dtype, run_ppo, tmp_path):
    options = ["steps=1", "minibatches=1", "micro_batch=8", f"dtype={dtype}"]
    (first,) = rows(run_ppo(tmp_path, *(p for option in options for p in ("--set", option))), "log.jsonl")
    assert first["kl"] == first["kl_k3"] == first["clipped"] == first["update_kl"] == 0
    assert first["ratio"] == first["ratio_max"] == 1


def test_rollouts_show_score_kl_and_total_of_an_answer(trained):
    kept, log = rows(trained, "rollouts.jsonl"), rows(trained, "log.jsonl")
    assert [row["step"] for row in kept] == [1] * 4 + [9] * 4
    assert set(kept[0]) == {"step", "prompt", "response", "score", "kl", "total"}
    for row in kept:
        assert row["total"] == pytest.approx(row["score"] - log[row["step"] - 1]["kl_coef"] * row["kl"])


def test_the_curve_has_the_reward_over_the_root_of_the_kl(trained):
    log = rows(trained, "log.jsonl")
    with open(trained / "curve.csv") as f:
        table = list(csv.DictReader(f))
    assert [int(row["step"]) for row in table] == [row["step"] for row in log] == list(range(1, 17))
    for row, logged in zip(table, log, strict=True):
        assert float(row["sqrt_kl"]) ** 2 == pytest.approx(max(logged["kl"], 0), abs=1e-4)
        assert float(row["reward"]) == pytest.approx(logged["reward"], rel=1e-4, abs=1e-5)


def test_a_run_ends_early_when_the_kl_is_above_its_limit(run_ppo, tmp_path):
    out = run_ppo(tmp_path, "--set", "steps=16", "--set", "stop_kl=0.05", "--set", "policy_optimizer.lr=0.02")
    log, metrics = rows(out, "log.jsonl"), json.loads((out / "metrics.json").read_text())
    assert metrics["ended"] == "stop_kl"
    assert metrics["steps"] == len(log) < 16
    assert log[-1]["kl"] > 0.05 and all(row["kl"] <= 0.05 for row in log[:-1])


def test_the_policys_updates_of_a_step_end_when_it_has_moved_far_enough(run_ppo, tmp_path):
    options = ["steps=1", "inner_epochs=4", "stop_update_kl=0.0001", "policy_optimizer.lr=0.01"]
    (row,) = rows(run_ppo(tmp_path, *(p for option in options for p in ("--set", option))), "log.jsonl")
    assert 1 <= row["updates"] < 8
    assert row["update_kl"] <= 0.0001


def test_the_reference_may_be_another_model_than_the_policys_start(base_model, ppo_inputs, run_ppo, tmp_path):
    (first,) = rows(run_ppo(tmp_path, "--in", f"reference={base_model}", "--set", "steps=1"), "log.jsonl")
    assert first["kl"] > 1  # the start learnt to answer, the base model writes any byte


def test_ptx_mixes_pretraining_text_into_the_policys_loss(run_ppo, token_dataset, tmp_path):
    options = ["steps=6", "ptx_coef=1.0", "ptx_length=32", "ptx_ratio=0.5"]
    given = ["--in", f"tokens={token_dataset}", *(p for option in options for p in ("--set", option))]
    logged = rows(run_ppo(tmp_path, *given), "log.jsonl")
    assert logged[-1]["ptx_loss"] < logged[0]["ptx_loss"]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("ptx_coef=1.0", "ptx_coef needs --in tokens=DIR"),
        ("max_prompt_length=250", "above the policy model's context of 256"),
        ("parallel={context: 2}", "ppo.parallel.context: context-parallel ranks can't sample"),
        ("checkpoints.every=5", "ppo.checkpoints.every: PPO keeps the newest checkpoints (last) only"),
        ("max_prompt_length=2", "no prompt to train on; raise max_prompt_length"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(option, told, run_ppo, tmp_path, capsys):
    assert run_ppo(tmp_path, "--set", option, code=1) is None
    error = capsys.readouterr().err
    assert told in error and len(error.strip().splitlines()) == 1


def test_ptx_rows_are_runs_of_the_datasets_tokens(token_dataset):
    data = PretrainingRows(token_dataset, 16)
    drawn = data.draw(4, seed=3)
    assert torch.equal(drawn, data.draw(4, seed=3))
    assert ((drawn[:, 1:] - drawn[:, :-1]) % 97 == 1).all()  # the dataset counts up


def test_every_prompt_has_its_turn_before_any_comes_again():
    numbers = [n for step in range(6) for n in prompt_numbers(9, 3, step, seed=1)]
    assert sorted(numbers[:9]) == sorted(numbers[9:]) == list(range(9))
    assert numbers[:9] != numbers[9:]
    assert sorted(prompt_numbers(3, 9, 0, seed=1)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_mask_marks_the_columns_that_chose_the_sampled_tokens():
    episodes = Episodes([[1, 2, 3], [1]], [[4, 5], [6]], [True, False])
    assert episodes.mask.tolist() == [[False, False, True, True], [True, False, False, False]]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.lists(IDS, min_size=1), st.lists(IDS, min_size=1), st.booleans()), min_size=1))
def test_answers_come_back_from_the_disk_as_they_were(tmp_path_factory, kept):
    path = tmp_path_factory.mktemp("answers") / "step.safetensors"
    prompts, answers, finished = ([*column] for column in zip(*kept, strict=True))
    write_answers(path, Episodes(prompts, answers, finished))
    assert read_answers(path, prompts) == Episodes(prompts, answers, finished)
    assert read_answers(path, [*prompts, [1]]) is None  # of other prompts
    path.write_bytes(path.read_bytes()[:-1])
    assert read_answers(path, prompts) is None
    assert read_answers(path.with_name("none"), prompts) is None


def test_main_is_what_the_console_script_calls(capsys):
    with pytest.raises(SystemExit) as end:
        main(["ppo", "--help"])
    assert end.value.code == 0
    assert "tokens (tokens, optional)" in " ".join(capsys.readouterr().out.split())
