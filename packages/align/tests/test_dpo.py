"""DPO: the loss against hand-computed values, answers in ids, and the stage."""

import json
import math

import pytest

from headwater_align.chat_format import ChatFormat
from headwater_align.dpo.config import DpoConfig
from headwater_align.dpo.data import microbatches
from headwater_align.rankings import prepare, whole_prompts


def record(name, responses, ranks, prompt="Which?"):
    return {"id": name, "source": "s", "prompt": [{"role": "user", "content": prompt}], "responses": responses,
            "ranks": ranks}  # fmt: skip


def test_the_first_loss_is_ln_2_and_the_gradient_is_beta_half():
    import torch

    from headwater_align.dpo.loss import dpo_losses

    chosen = torch.tensor([-3.0, -7.0], requires_grad=True)
    losses = dpo_losses(chosen, torch.tensor([-4.0, -2.0]), chosen.detach(), torch.tensor([-4.0, -2.0]), beta=0.2)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)
    losses.sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.1, -0.1])  # beta sigmoid(0)
    # beta h = 0.5 (2 - (-1)) = 1.5; -log sigmoid(1.5) = 0.201413, with a tenth of the labels wrong + 0.1 * 1.5
    one = [torch.tensor([x]) for x in (-1.0, -5.0, -3.0, -4.0)]
    assert dpo_losses(*one, beta=0.5).item() == pytest.approx(0.201413, abs=1e-6)
    assert dpo_losses(*one, beta=0.5, label_smoothing=0.1).item() == pytest.approx(0.351413, abs=1e-6)


def test_answers_in_ids(byte_tokenizer):
    chat = ChatFormat(byte_tokenizer)
    talk = record("multi", ["yes", "no, no"], [1, 2])
    talk["prompt"] = [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "bb"}, {"role": "user", "content": "c"},
    ]  # fmt: skip
    made = prepare([talk, record("long", ["y", "n"], [1, 2], "?" * 90), record("same", ["abcdefgh" * 9 + end for end in
                    "xy"], [1, 2])], chat, 60)  # fmt: skip
    assert [r["id"] for r in made.rejects] == ["long", "same"] and made.answers_cut == 0
    (one,) = made.rankings
    assert chat.tokenizer.decode(one.rows[0][: one.prompt_tokens], skip_special_tokens=False).endswith(
        "c<|end|><|assistant|>"
    )
    (piece,) = microbatches([one], {"multi": [-1.0, -2.0]}, 8, chat.pad)
    for row, text in zip(range(2), ("yes<|end|>", "no, no<|end|>"), strict=True):
        said = piece["labels"][row][piece["loss_mask"][row]].tolist()
        assert chat.tokenizer.decode(said, skip_special_tokens=False) == text  # not the earlier turn's


def test_the_answers_of_a_prompt_stay_together(byte_tokenizer):
    chat = ChatFormat(byte_tokenizer)
    ranked = prepare(
        [record(str(k), list("abcdefg"[:k]), list(range(1, k + 1))) for k in (3, 2, 7, 2)], chat, 99
    ).rankings
    assert [[len(one.rows) for one in part] for part in whole_prompts(ranked, 5)] == [[3, 2], [7], [2]]


def test_k_answers_cost_the_mean_over_their_pairs(byte_tokenizer):
    import torch

    from headwater_align.dpo.stage import objective

    chat = ChatFormat(byte_tokenizer)
    ranked = prepare([record("k", ["a", "b", "c"], [1, 2, 2]), record("p", ["d", "e"], [2, 1])], chat, 99).rankings
    (batch,) = microbatches(ranked, {"k": [0.0, 0.0, 0.0], "p": [0.0, 0.0]}, 8, chat.pad)
    nll = torch.zeros(batch["labels"].shape)
    nll[:, 8:] = batch["loss_mask"][:, 8:] * torch.tensor([1.0, 2.0, 4.0, 1.5, 1.0])[:, None]
    said = nll.sum(1)
    total, count, metrics = objective(DpoConfig(beta=1.0))(nll, batch)
    softplus = [math.log1p(math.exp(float(said[w] - said[x]))) for w, x in ((0, 1), (0, 2), (4, 3))]
    assert total.item() == pytest.approx((softplus[0] + softplus[1]) / 2 + softplus[2], abs=1e-6)
    assert count.item() == 2 and metrics["accuracy"].item() == 2


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def dpo_model(run_dpo, tmp_path_factory):
    return run_dpo(tmp_path_factory.mktemp("dpo"))


def test_the_stage_learns_what_is_preferred(dpo_model, sft_model):
    from headwater_align.engine import generation, pretrained, runtime

    log = log_of(dpo_model)
    assert log[0]["heldout_loss"] == pytest.approx(math.log(2), abs=1e-6)  # the policy is the reference
    assert log[1]["loss"] == pytest.approx(math.log(2), abs=1e-6) and log[1]["accuracy"] == 0.5
    metrics = json.loads((dpo_model / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9 and metrics["heldout_loss"] < 0.5
    runtime.initialize(seed=1)
    share = []
    for folder in (sft_model, dpo_model):
        loaded = pretrained.load(folder)
        chat = ChatFormat(loaded.tokenizer)
        prompts = chat.prompts([[{"role": "user", "content": f"Number {i}?"}] for i in range(200, 240)])
        made = generation.generate(loaded.model, prompts, 12, stop_ids=chat.stops, seed=1)
        text = "".join(chat.text(one.tokens) for one in made)
        share.append(text.count("a") / max(1, text.count("a") + text.count("b")))
    assert share[1] > share[0] + 0.2, share


def test_a_pipeline_learns_what_one_rank_learns(dpo_model, run_dpo, tmp_path):
    out = run_dpo(tmp_path, "parallel={pipeline: 2}", "threads=1")
    for mine, other in zip(log_of(out), log_of(dpo_model), strict=True):
        assert mine["step"] == other["step"]
        for name in other.keys() & {"loss", "accuracy", "margin", "chosen", "grad_norm", "heldout_loss"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), (mine["step"], name)


def test_bad_input_is_one_line(run_dpo, tmp_path, capsys):
    for option, told in [
        ("parallel.context=2", "an answer's log-probability needs whole rows"),
        ("max_length=8", "no comparison to train on"),
        ("max_length=999", "above the model's context"),
    ]:
        run_dpo(tmp_path, option, code=1)
        assert told in capsys.readouterr().err
