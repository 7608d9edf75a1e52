import json
import math

import pytest
import torch

from headwater_align.chat_format import ChatFormat
from headwater_align.cli import main
from headwater_align.reward import bradley_terry, length_baseline, normalisation, prepare
from headwater_align.reward_model import RewardModel, last_values


def test_equal_rewards_cost_log_two_and_a_sure_right_order_nothing():
    losses = bradley_terry(torch.tensor([0.0, 100.0, -100.0]), torch.zeros(3))
    assert losses.tolist() == pytest.approx([math.log(2), 0.0, 100.0])


def test_the_length_baseline_takes_its_direction_from_the_training_pairs():
    assert length_baseline([3, 5, -1], [2, -2, 0, 4]) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert length_baseline([-3, -5, 1], [2, -2, 0, 4]) == pytest.approx((0 + 1 + 0.5 + 0) / 4)


def test_normalised_rewards_have_mean_zero_and_deviation_one():
    raw = torch.tensor([1.0, 4.0, 2.0, -3.0])
    gain, bias = normalisation(raw)
    scaled = gain * raw + bias
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std(unbiased=False).item() == pytest.approx(1, abs=1e-6)


def test_pairs_that_the_length_limit_makes_equal_are_set_aside_by_name(byte_tokenizer):
    prompt = [{"role": "user", "content": "Why?"}]
    compared = {"prompt": prompt, "responses": ["same start, chosen", "same start, rejected"], "ranks": [1, 2]}
    made = prepare([{"id": "p", "source": "s", **compared}], ChatFormat(byte_tokenizer), 12)
    assert not made.pairs
    assert [r["id"] for r in made.rejects] == ["p"]


def test_it_learns_what_is_preferred_on_prompts_it_has_not_seen(reward_model):
    metrics = json.loads((reward_model / "metrics.json").read_text())
    assert metrics["accuracy_low"] > 0.6
    assert metrics["accuracy_low"] < metrics["accuracy"] <= metrics["accuracy_high"]
    assert abs(metrics["length_baseline"] - 0.5) < 0.2


def test_chosen_answers_score_mean_zero_on_the_training_prompts(reward_model, preferences):
    from headwater_align.engine import runtime
    from headwater_align.instructions import read_split

    runtime.initialize(seed=1)
    model = RewardModel.load(reward_model, torch.float32)
    chat = ChatFormat(model.loaded.tokenizer)
    pairs = prepare(read_split(preferences, "train"), chat, 256).pairs
    scores = model([pair.chosen for pair in pairs], chat.pad, 16)
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def test_transformers_reads_the_same_reward_from_the_export(reward_model):
    import transformers

    from headwater_align.engine import pretrained, runtime

    runtime.initialize(seed=1)
    loaded = pretrained.load(reward_model)
    chat = ChatFormat(loaded.tokenizer)
    talks = [
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}] for answer in ("So.", "aaa")
    ]
    rows = [row.ids for row in chat.render(talks)]
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(reward_model)
    with torch.no_grad():
        expected = [theirs(torch.tensor([row])).logits.item() for row in rows]
    assert last_values(loaded.model, rows, chat.pad, 8).tolist() == pytest.approx(expected, abs=1e-4)


def test_a_language_model_given_as_reward_model_is_refused_in_one_line(sft_model, instructions, tmp_path, capsys):
    inputs = [f"policy={sft_model}", f"reward={sft_model}", f"instructions={instructions}"]
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(["ppo", *(part for item in inputs for part in ("--in", item)), *where]) == 1
    assert "no reward model" in capsys.readouterr().err


def test_a_ranking_of_four_gives_its_six_pairs(byte_tokenizer):
    compared = {"prompt": [{"role": "user", "content": "Why?"}], "responses": list("abcd"), "ranks": [2, 1, 3, 4]}
    chat = ChatFormat(byte_tokenizer)
    pairs = prepare([{"id": "p", "source": "s", **compared}], chat, 64).pairs
    said = [chat.text(pair.chosen)[-1] + chat.text(pair.rejected)[-1] for pair in pairs]
    assert said == ["ba", "bc", "bd", "ac", "ad", "cd"]
