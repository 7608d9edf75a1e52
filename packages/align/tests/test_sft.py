import json

import pytest
import torch

from headwater_align._contracts.errors import UserError
from headwater_align.chat_format import ChatFormat
from headwater_align.cli import main
from headwater_align.sft import microbatches, packed_microbatches, prepare


def talk(question, answer, name="x"):
    return {"id": name, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def loaded(base_model):
    from headwater_align.engine import pretrained, runtime

    runtime.initialize(seed=1)
    return pretrained.load(base_model)


def test_rows_of_one_batch_never_see_each_other_or_the_padding(loaded):
    from headwater_align.engine import forward

    chat = ChatFormat(loaded.tokenizer)
    rows = prepare(
        [talk("Short?", "Yes."), talk("A much longer question?", "And its answer, longer too.")], chat, 256
    ).rows
    (batch,) = microbatches(rows, 2, chat.pad)
    with torch.no_grad():
        together = forward.logits(loaded.model, batch["tokens"])
        for number, row in enumerate(rows):
            alone = forward.logits(loaded.model, torch.tensor([row.ids[:-1]]))
            assert torch.allclose(together[number, : len(row.ids) - 1], alone[0], atol=1e-5)


def test_the_loss_counts_the_assistants_tokens_and_nothing_else(loaded):
    from headwater_align.engine import Trainer, forward, next_token_loss
    from headwater_model.config import OptimizerConfig, ScheduleConfig

    chat = ChatFormat(loaded.tokenizer)
    rows = prepare([talk("Why?", "Because."), talk("And how does it work?", "So.")], chat, 256).rows
    figures = Trainer(loaded.model, OptimizerConfig(), ScheduleConfig()).evaluate(
        microbatches(rows, 1, chat.pad), next_token_loss
    )
    with torch.no_grad():
        nats = [
            -forward.token_logprobs(loaded.model, torch.tensor([row.ids]))[0, t - 1].item()
            for row in rows
            for t in range(1, len(row.ids))
            if row.supervised[t]
        ]
    assert figures["count"] == len("Because.") + len("So.") + 2
    assert figures["loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)


@pytest.fixture
def rows(loaded):
    """Conversations of 13 to 90 tokens."""
    talks = [talk(f"Question {i}?", "Answer. " * (1 + 7 * i % 10)) for i in range(17)]
    return prepare(talks, ChatFormat(loaded.tokenizer), 256).rows


def test_packed_rows_have_the_loss_of_rows_by_themselves(loaded, rows):
    from headwater_align.engine import Trainer, next_token_loss
    from headwater_model.config import OptimizerConfig, ScheduleConfig

    filler = ChatFormat(loaded.tokenizer).pad
    trainer = Trainer(loaded.model, OptimizerConfig(), ScheduleConfig())
    batches = packed_microbatches(rows, 2, filler, capacity=128)
    assert 1 < len(batches) < len(rows) / 4  # several rows a sequence, several sequences a micro-batch
    assert all(batch["labels"].min() >= 0 for batch in batches)  # ids, also where the loss does not look
    packed = trainer.evaluate(batches, next_token_loss)
    alone = trainer.evaluate(microbatches(rows, 1, filler), next_token_loss)
    assert packed["count"] == alone["count"] == sum(sum(row.supervised) for row in rows)
    assert packed["loss"] == pytest.approx(alone["loss"], rel=1e-6)

    def gradients(batches):
        total = sum(
            next_token_loss(loaded.model(b["tokens"], None, b.get("attention_mask"), labels=b["labels"]), b)[0]
            for b in batches
        )
        return torch.autograd.grad(total / packed["count"], list(loaded.model.parameters()))

    for ours, theirs in zip(gradients(batches), gradients(microbatches(rows, 1, filler)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_packed_rows_of_a_model_that_sees_across_them_have_another_loss(loaded, rows):
    from headwater_align.engine import Trainer, next_token_loss
    from headwater_model.config import OptimizerConfig, ScheduleConfig

    trainer = Trainer(loaded.model, OptimizerConfig(), ScheduleConfig())
    batches = packed_microbatches(rows, 2, ChatFormat(loaded.tokenizer).pad, capacity=128)
    within = trainer.evaluate(batches, next_token_loss)
    for batch in batches:
        del batch["attention_mask"]
    across = trainer.evaluate(batches, next_token_loss)
    assert across["loss"] != pytest.approx(within["loss"], rel=1e-4)


def test_a_row_in_which_the_assistant_says_nothing_is_an_error_that_names_it(loaded):
    silent = {"id": "row-7", "messages": [{"role": "user", "content": "Hello?"}]}
    with pytest.raises(UserError, match="row-7"):
        prepare([talk("Why?", "So."), silent], ChatFormat(loaded.tokenizer), 256)


def test_long_rows_are_cut_and_counted_and_hopeless_ones_set_aside(loaded):
    made = prepare([talk("Why?", "a" * 50), talk("b" * 50, "So.", "long")], ChatFormat(loaded.tokenizer), 32)
    assert [len(row.ids) for row in made.rows] == [32]
    assert made.cut == 1
    assert made.rejects == [{"id": "long", "reason": "the prompt alone fills the row"}]


def test_training_lowers_the_held_out_loss_and_exports_a_model_that_stops_at_the_end_of_a_turn(sft_model, base_model):
    metrics = json.loads((sft_model / "metrics.json").read_text())
    assert metrics["heldout_loss"] < metrics["heldout_loss_before"] - 1
    assert json.loads((sft_model / "generation_config.json").read_text())["eos_token_id"] == [261, 256]
    rows = [json.loads(line) for line in (sft_model / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, metrics["steps"] + 1))


def test_a_length_above_the_context_is_refused_in_one_line(base_model, instructions, tmp_path, capsys):
    inputs = ["--in", f"model={base_model}", "--in", f"instructions={instructions}"]
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(["sft", *inputs, *where, "--set", "max_length=999"]) == 1
    assert "max_length 999 is above the model's context of 256" in capsys.readouterr().err


def test_training_on_packed_rows_learns_as_well(base_model, instructions, sft_model, tmp_path, monkeypatch):
    from headwater_align.engine import Trainer

    sequences, step = [], Trainer.step

    def counting(trainer, microbatches, *more):
        sequences.append(sum(len(batch["tokens"]) for batch in microbatches))
        return step(trainer, microbatches, *more)

    monkeypatch.setattr(Trainer, "step", counting)
    inputs = ["--in", f"model={base_model}", "--in", f"instructions={instructions}"]
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    options = ["pack=true", "max_length=128", "optimizer.lr=0.01", "epochs=4", "batch_size=16"]
    assert main(["sft", *inputs, *where, *[part for option in options for part in ("--set", option)]]) == 0
    packed, plain = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "out", sft_model))
    same = ["steps", "tokens", "supervised_tokens"]
    assert [packed[name] for name in same] == [plain[name] for name in same]
    assert packed["heldout_loss_before"] == pytest.approx(plain["heldout_loss_before"], rel=1e-6)
    assert packed["heldout_loss"] < packed["heldout_loss_before"] - 1
    assert max(sequences) <= 16 / 4 and len(sequences) == packed["steps"]  # four rows and more a sequence
