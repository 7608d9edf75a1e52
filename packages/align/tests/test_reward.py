import json
import math
import shutil

import pytest
import torch

from headwater_align._contracts import manifest
from headwater_align._contracts.errors import UserError
from headwater_align.chat_format import ChatFormat
from headwater_align.cli import main
from headwater_align.config import RewardConfig
from headwater_align.instructions import read_split
from headwater_align.rankings import prepare
from headwater_align.reward.data import microbatches
from headwater_align.reward.normalise import demonstrations, normalisation
from headwater_align.reward.stage import objective, score
from headwater_align.reward_model import RewardModel, last_values


def test_normalised_rewards_have_mean_zero_and_deviation_one():
    raw = torch.tensor([1.0, 4.0, 2.0, -3.0])
    gain, bias = normalisation(raw)
    scaled = gain * raw + bias
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std(unbiased=False).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("raw", "told"), [([1.0, 1.0], "same reward"), ([1.0, math.inf], "not finite"), ([1.0, math.nan], "not finite")]
)
def test_rewards_that_do_not_differ_or_exploded_are_no_scale(raw, told):
    with pytest.raises(UserError, match=told):
        normalisation(torch.tensor(raw))


BAD = [
    ("too long", "Why? " * 20, ["a", "b"], [1, 2], "the prompt alone fills the row"),
    ("alike", "Why?", ["same start, one", "same start, two"], [1, 2], "answers of different rank are the same"),
    ("empty", "Why?", ["a", "  "], [1, 2], "empty completion"),
    ("tied", "Why?", ["a", "b"], [1, 1], "all ranks are equal"),
    ("short", "Why?", ["a", "b"], [1], "broken ranking"),
    ("named", "Why?", ["a", "b"], ["best", "worst"], "broken ranking"),
    ("alone", "Why?", ["a"], [1], "fewer than two answers"),
]


def test_what_is_no_ranking_is_set_aside_by_name_with_the_reason(byte_tokenizer, make_ranking):
    records = [make_ranking(name, asked, texts, ranks) for name, asked, texts, ranks, _ in BAD]
    old = {"id": "old", "source": "s", "prompt": records[0]["prompt"], "chosen": [], "rejected": []}
    made = prepare([*records, old], ChatFormat(byte_tokenizer), 16)
    assert not made.rankings
    told = {r["id"]: r["reason"] for r in made.rejects}
    assert told.pop("old") == "no prompt, responses and ranks"
    assert set(told) == {name for name, *_ in BAD}
    for name, *_, reason in BAD:
        assert reason in told[name]


def test_the_limit_cuts_answers_and_counts_them_but_leaves_prompts_whole(byte_tokenizer, make_ranking):
    chat = ChatFormat(byte_tokenizer)
    record = make_ranking("r", "Why?", ["So it is.", "I say so", "I say no", "No."], [10, 20, 30, 40], strength=2.5)
    made = prepare([record], chat, 13)  # 7 of the prompt and its markers, 6 of the answer
    one = made.rankings[0]
    assert (made.answers_cut, made.answers_merged, made.rejects) == (1, 2, [])
    assert [chat.text(row[one.prompt_tokens :]) for row in one.rows] == ["So it ", "No."]
    assert (one.ranks, one.answer_tokens, one.strength) == ([1, 2], [6, 4], 2.5)
    assert chat.text(one.prompt) == "Why?"


def test_rows_are_what_the_chat_format_renders(byte_tokenizer, make_ranking):
    chat = ChatFormat(byte_tokenizer)
    record = make_ranking("r", "Why?", ["a", "bb"], [2, 1])
    whole = chat.render([[*record["prompt"], {"role": "assistant", "content": text}] for text in ("a", "bb")])
    assert prepare([record], chat, 64).rankings[0].rows == [row.ids for row in whole]


def made_of(make_ranking, chat, answers):
    return prepare(
        [make_ranking(str(i), f"{i}?", list("abcdefgh"[:k]), list(range(1, k + 1))) for i, k in enumerate(answers)],
        chat,
        64,
    ).rankings


def test_a_prompts_completions_are_never_parted(byte_tokenizer, make_ranking):
    made = microbatches(made_of(make_ranking, ChatFormat(byte_tokenizer), [2, 3, 2, 6, 4]), 0, 5)
    assert [part["prompt"].tolist() for part in made] == [[0, 0, 1, 1, 1], [0, 0], [0] * 6, [0] * 4]
    assert made[0]["ranks"].tolist() == [1, 2, 1, 2, 3]
    assert all(part["tokens"].shape[1] % 8 == 0 for part in made)


def test_the_batch_cut_into_other_micro_batches_costs_the_same(byte_tokenizer, make_ranking):
    rankings = made_of(make_ranking, ChatFormat(byte_tokenizer), [2, 3, 4, 2])
    of_token = torch.randn(300, generator=torch.Generator().manual_seed(1))  # a reward that the last letter decides
    sums = []
    for size in (2, 8, 100):
        found = []
        for part in microbatches(rankings, 0, size):
            values = of_token[part["tokens"].roll(1, 1)]
            found.append(objective(0.5, 0.0)(values, part))
        shown = [{"loss": total, **metrics} for total, _, metrics in found]
        assert sum(int(count) for _, count, _ in found) == 4
        sums.append({name: sum(float(of[name]) for of in shown) for name in shown[0]})
    assert sums[0] == pytest.approx(sums[1], rel=1e-5) and sums[1] == pytest.approx(sums[2], rel=1e-5)


def test_reference_demonstrations_are_drawn_by_seed_from_those_that_fit(byte_tokenizer):
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    long = [*said[:1], {"role": "assistant", "content": "So it goes on and on."}]
    records = [{"id": f"{i}", "messages": long if i % 2 else said} for i in range(40)]
    chat = ChatFormat(byte_tokenizer)
    names, rows = demonstrations(records, chat, 16, 10, seed=3)
    assert names == demonstrations(records, chat, 16, 10, seed=3)[0] != demonstrations(records, chat, 16, 10, seed=4)[0]
    assert len(names) == len(rows) == 10 and all(int(name) % 2 == 0 for name in names)
    with pytest.raises(UserError, match="no demonstration of at most 4 tokens"):
        demonstrations(records, chat, 4, 10, seed=3)


def test_it_learns_what_is_preferred_on_prompts_it_has_not_seen(reward_model):
    metrics = json.loads((reward_model / "metrics.json").read_text())
    assert (metrics["heldout_comparisons"], metrics["heldout_pairs"]) == (40, 8 * 3 + 32)
    assert metrics["accuracy_low"] > 0.6 and metrics["heldout_prompts"] == 40
    assert metrics["accuracy_low"] < metrics["accuracy"] <= metrics["accuracy_high"]
    assert abs(metrics["length_only_accuracy"] - 0.5) < 0.25
    assert metrics["heldout_loss"] < metrics["length_only_loss"]
    assert set(metrics["heldout_by_source"]) == {"s0"}
    assert set(metrics["heldout_by_labeller"]) == {"w0"}
    assert len((reward_model / "calibration.csv").read_text().splitlines()) == 11


def test_best_answers_score_mean_zero_where_no_demonstrations_are_given(reward_model, preferences):
    scale = json.loads((reward_model / "reward.json").read_text())
    assert scale["reference"].startswith("best answers") and scale["reference_rows"] == 120
    scores = scored(
        reward_model, lambda chat: [r.best for r in prepare(read_split(preferences, "train"), chat, 256).rankings]
    )
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def scored(folder, rows_of):
    from headwater_align.engine import runtime

    runtime.initialize(seed=1)
    model = RewardModel.load(folder, torch.float32)
    chat = ChatFormat(model.loaded.tokenizer)
    return model(rows_of(chat), chat.pad, 16)


def test_another_round_goes_on_from_the_head_and_demonstrations_score_mean_zero(
    run_reward, reward_model, instructions, tmp_path
):
    out = run_reward(tmp_path, "reference_rows=30", "epochs=1", start=reward_model)
    first = [json.loads((folder / "log.jsonl").read_text().splitlines()[0]) for folder in (reward_model, out)]
    last = json.loads((reward_model / "metrics.json").read_text())["heldout_loss"]
    assert first[0]["heldout_loss"] == pytest.approx(math.log(2))
    assert first[1]["heldout_loss"] == pytest.approx(last, rel=1e-4)
    scale = json.loads((out / "reward.json").read_text())
    assert scale["reference"].startswith("demonstrations") and scale["reference_rows"] == 30
    records = read_split(instructions, "train")
    scores = scored(out, lambda chat: demonstrations(records, chat, 256, 30, 1)[1])
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)


def test_a_start_that_does_not_belong_is_refused_in_one_line(run_reward, reward_model, sft_model, tmp_path, capsys):
    run_reward(tmp_path / "head", code=1, start=sft_model)
    assert "no reward model" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(reward_model, other)
    text = (other / "tokenizer.json").read_text()
    assert '"<|system|>"' in text
    (other / "tokenizer.json").write_text(text.replace('"<|system|>"', '"<|sistem|>"'))
    manifest.write(other, manifest.Manifest("export", 1, "test", "0", "reward", {}))
    run_reward(tmp_path / "tokens", code=1, start=other)
    error = capsys.readouterr().err
    assert "another tokenizer" in error and len(error.strip().splitlines()) == 1


def test_a_reward_that_is_no_number_names_its_record(reward_model):
    from headwater_align.engine import pretrained, runtime

    runtime.initialize(seed=1)
    loaded = pretrained.load(reward_model)
    with torch.no_grad():
        loaded.model.output_layer.weight[:] = math.nan
    with pytest.raises(UserError, match="record r1: the reward is nan"):
        score(loaded, ["r1", "r2"], [[1, 2], [3]], 0, 2)


def test_nothing_to_learn_from_is_one_line_with_the_reason(
    run_reward, make_preferences, make_ranking, tmp_path, capsys
):
    tied = [make_ranking("t", "Why?", ["a", "b"], [1, 1])]
    run_reward(tmp_path, code=1, preferences=make_preferences(tmp_path / "tied", tied, tied))
    error = capsys.readouterr().err
    assert "all ranks are equal" in error and len(error.strip().splitlines()) == 1


def test_a_task_that_is_solved_is_no_divergence_and_a_run_that_climbs_is():
    from headwater_align.engine import Policy, settings_of

    def measures(losses):
        policy = Policy(settings_of(RewardConfig(), "reward").spikes)
        return {policy.decide(step, loss, 1.0).kind for step, loss in enumerate(losses, 1)}

    solved = [max(0.69 * 0.9**step, 7.5e-5) * (1 + 0.3 * (step // 40 % 2)) for step in range(240)]
    assert measures(solved) == {"go"}
    assert "stop" in measures([0.69] * 70 + [0.69 + 0.02 * step for step in range(200)])


@pytest.mark.parametrize("layout", ["{data: 2, zero: 1}", "{pipeline: 2}"])
def test_two_ranks_learn_what_one_learns(layout, run_reward, tmp_path):
    options = ("epochs=1", "batch_size=15", "micro_batch=7", "threads=1", "tie_threshold=0.1")
    logs = []
    for name, parallel in (("one", "{}"), ("two", layout)):
        out = run_reward(tmp_path / name, *options, f"parallel={parallel}")
        logs.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for one, two in zip(*logs, strict=True):
        for name in set(one) & {"loss", "accuracy", "margin", "heldout_loss", "grad_norm"}:
            assert two[name] == pytest.approx(one[name], rel=2e-4, abs=1e-5), (one["step"], name)


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
