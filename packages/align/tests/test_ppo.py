import json

import numpy as np
import pytest
import torch

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.ppo.pretraining_rows import PretrainingRows
from headwater_align.ppo.prompts import prompt_numbers
from headwater_align.ppo.rollouts import Episodes


@pytest.fixture(scope="module")
def trained(run_ppo, tmp_path_factory):
    return run_ppo(tmp_path_factory.mktemp("ppo"), "--set", "steps=16")


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_it_raises_the_reward_on_prompts_it_was_not_trained_on(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["reward_gain_low"] > 0
    assert metrics["ppo_reward"] - metrics["sft_reward"] == pytest.approx(metrics["reward_gain"], abs=1e-6)
    assert metrics["win_rate_low"] > 0.5


def test_at_the_first_step_kl_is_zero_and_the_ratio_one(run_ppo, tmp_path):
    (first,) = rows(run_ppo(tmp_path, "--set", "steps=1", "--set", "minibatches=1"), "log.jsonl")
    assert first["kl"] == 0
    assert first["clipped"] == 0
    assert abs(first["update_kl"]) < 1e-6


def test_the_reference_never_changes_and_the_policy_does(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["sft_kl"] == 0
    assert metrics["ppo_kl"] > 0


def test_samples_show_both_answers_to_each_prompt_with_their_rewards(trained):
    samples = rows(trained, "samples.jsonl")
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(samples[0]) == {"prompt", "sft", "ppo", "sft_reward", "ppo_reward"}
    assert np.mean([s["ppo_reward"] for s in samples]) == pytest.approx(metrics["ppo_reward"], abs=1e-6)


def test_a_strong_kl_penalty_keeps_the_policy_nearer_to_the_reference(trained, run_ppo, tmp_path):
    tied = run_ppo(tmp_path, "--set", "steps=16", "--set", "kl_coef=2.0")
    kl = [json.loads((folder / "metrics.json").read_text())["ppo_kl"] for folder in (tied, trained)]
    assert kl[0] < kl[1]


def test_ptx_mixes_pretraining_text_into_the_policys_loss(run_ppo, token_dataset, tmp_path):
    options = ["--in", f"tokens={token_dataset}", "--set", "ptx_coef=1.0", "--set", "ptx_length=32"]
    logged = rows(run_ppo(tmp_path, "--set", "steps=6", *options), "log.jsonl")
    assert logged[-1]["ptx_loss"] < logged[0]["ptx_loss"]


def test_ptx_without_pretraining_tokens_is_refused_in_one_line(run_ppo, tmp_path, capsys):
    assert run_ppo(tmp_path, "--set", "ptx_coef=1.0", code=1) is None
    assert "ptx_coef needs --in tokens=DIR" in capsys.readouterr().err


def test_ptx_rows_are_runs_of_the_datasets_tokens(token_dataset):
    data = PretrainingRows(token_dataset, 16)
    drawn = data.draw(4, seed=3)
    assert torch.equal(drawn, data.draw(4, seed=3))
    assert ((drawn[:, 1:] - drawn[:, :-1]) % 97 == 1).all()  # the dataset counts up


def test_every_prompt_has_its_turn_before_any_comes_again():
    numbers = [n for step in range(6) for n in prompt_numbers(9, 3, step, seed=1)]
    assert sorted(numbers[:9]) == sorted(numbers[9:]) == list(range(9))
    assert numbers[:9] != numbers[9:]


def test_the_mask_marks_the_columns_that_chose_the_sampled_tokens():
    episodes = Episodes([[1, 2, 3], [1]], [[4, 5], [6]], [True, False])
    assert episodes.mask.tolist() == [[False, False, True, True], [True, False, False, False]]


def test_a_prompt_and_answer_that_exceed_the_context_are_refused_in_one_line(run_ppo, tmp_path, capsys):
    assert run_ppo(tmp_path, "--set", "max_prompt_length=250", code=1) is None
    assert "above the policy model's context of 256" in capsys.readouterr().err


@pytest.fixture(scope="module")
def token_dataset(tmp_path_factory):
    """A Megatron dataset of two documents that count from 0 to 96 again and again."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    from headwater_align.engine import runtime  # noqa: F401  # isort: split  (before Megatron)

    folder = tmp_path_factory.mktemp("tokens")
    builder = IndexedDatasetBuilder(str(folder / "train.bin"), dtype=np.uint16)
    for start in (0, 2):
        builder.add_document(torch.arange(start * 97, (start + 2) * 97) % 97, [194])
    builder.finalize(str(folder / "train.idx"))
    manifest.write(folder, manifest.Manifest("tokens", 1, "test", "0", "encode", {}))
    return folder


def test_main_is_what_the_console_script_calls(capsys):
    with pytest.raises(SystemExit) as end:
        main(["ppo", "--help"])
    assert end.value.code == 0
    assert "tokens (tokens, optional)" in " ".join(capsys.readouterr().out.split())
