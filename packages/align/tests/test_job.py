"""Training stages on several ranks, and what the loop of headwater-model brings to them: spikes, settings, faults."""

import json

import pytest

from headwater_align.cli import main

SFT = ["optimizer.lr=0.01", "epochs=2", "batch_size=15", "micro_batch=4"]


def run(stage, inputs, folder, *options, code=0):
    given = [part for name, path in inputs.items() for part in ("--in", f"{name}={path}")]
    sets = [part for option in options for part in ("--set", option)]
    assert main([stage, *given, "--out", f"{folder}/out", "--work", f"{folder}/work", *sets]) == code
    return [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()] if not code else []


@pytest.fixture(scope="module")
def sft_inputs(base_model, instructions):
    return {"model": base_model, "instructions": instructions}


@pytest.fixture(scope="module")
def alone(sft_inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return run("sft", sft_inputs, folder, *SFT), folder


@pytest.mark.parametrize("layout", ["{data: 2, zero: 1}", "{tensor: 2, sequence: true}", "{pipeline: 2}"])
def test_two_ranks_learn_what_one_learns(layout, alone, sft_inputs, tmp_path):
    rows = run("sft", sft_inputs, tmp_path, *SFT, f"parallel={layout}", "threads=1")
    assert [row["step"] for row in rows] == [row["step"] for row in alone[0]]
    for mine, other in zip(rows, alone[0], strict=True):
        for name in ("loss", "heldout_loss", "grad_norm"):
            if name in other:
                assert mine[name] == pytest.approx(other[name], rel=2e-4), (mine["step"], name)
    sizes = [(folder / "out" / "model.safetensors").stat().st_size for folder in (tmp_path, alone[1])]
    assert sizes[0] == sizes[1]


def test_a_bad_layout_or_setting_is_one_line(sft_inputs, tmp_path, capsys):
    for option, told, code in [
        ("parallel.tensr=2", "sft.parallel.tensr: unknown parameter; did you mean tensor?", 2),
        ("parallel.tensor=3", "kv_heads 2 is no multiple of parallel.tensor 3", 1),
        ("spikes.window=1", "sft.spikes.window: Input should be greater than or equal to 8", 2),
        ("parallel={pipeline: 2, chunks: 2}", "sft.parallel.chunks: the interleaved schedule is for pre-training", 1),
    ]:
        run("sft", sft_inputs, tmp_path, option, code=code)
        error = capsys.readouterr().err
        assert told in error and len(error.strip().splitlines()) == 1, error


def test_a_batch_that_breaks_the_run_is_skipped_and_said(sft_inputs, tmp_path, monkeypatch):
    from headwater_align import sft

    real = sft.microbatches
    seen = []

    def poisoned(rows, size, filler, multiple=8):
        made = real(rows, size, filler, multiple)
        seen.append(len(rows))
        if len(seen) == 4:  # the held-out rows came first
            made[0]["loss_mask"] = made[0]["loss_mask"].float() * float("nan")
        return made

    monkeypatch.setattr(sft, "microbatches", poisoned)
    rows = run("sft", sft_inputs, tmp_path, *SFT)
    flight = [json.loads(line) for line in (tmp_path / "out" / "flight.jsonl").read_text().splitlines()]
    assert [event["what"] for event in flight] == ["skip"] and "nan" in flight[0]["why"]
    assert rows[-1]["heldout_loss"] < rows[0]["heldout_loss"]


def test_adapters_learn_and_are_merged_into_a_plain_export(sft_inputs, base_model, alone, tmp_path):
    from safetensors.torch import load_file

    rows = run("sft", sft_inputs, tmp_path, *SFT, "optimizer.lr=0.03", "lora={rank: 4, targets: [qkv, mlp_in]}")
    assert rows[0]["heldout_loss"] == pytest.approx(alone[0][0]["heldout_loss"])
    assert rows[-1]["heldout_loss"] < rows[0]["heldout_loss"] - 0.2
    before, after = (load_file(folder / "model.safetensors") for folder in (base_model, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not before[name].equal(after[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}


def test_lora_in_a_wrong_spelling_is_one_line(sft_inputs, tmp_path, capsys):
    run("sft", sft_inputs, tmp_path, "lora={ranks: 4}", code=2)
    assert "sft.lora.ranks: unknown parameter; did you mean rank?" in capsys.readouterr().err
