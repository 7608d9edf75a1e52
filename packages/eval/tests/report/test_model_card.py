"""The model card of a small whole run: what the hub reads, what people read, and what is said to be missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_eval._contracts import manifest as artefacts
from headwater_eval.cli import main
from headwater_eval.model_card import front_matter
from headwater_eval.model_card.config import EnergyConfig
from headwater_eval.model_card.energy import Energy, estimate
from headwater_eval.model_card.stage import STAGE
from headwater_eval.report.inputs import RunRecord
from headwater_eval.report.units import safe_text

HOSTILE = "---\n<script>alert(1)</script> | # x [a](http://b) \u202e`"
RESULTS = ["results-base", "results-sft", "results-ppo"]
DECLARED = [name.removesuffix("?") for name in STAGE.reads if name not in ("*", "model?", "review?")]
BOOLQ = "acc (95% interval 0.47 to 0.57, n 200, chance 0.5)"
STAGES = 35
"""Run records of the small run."""
ENVIRONMENT = {"processor": "AMD EPYC", "cores": 2, "memory_gb": 25.3, "gpus": []}


@pytest.fixture
def run(small_run, tmp_path: Path):
    made = small_run(tmp_path / "run")
    checkpoint = made.root / "checkpoint"
    metrics = {"parameters": 237888, "tokens": 3936256, "steps": 1922, "flops": 5.99e12, "loss": 2.41,
               "heldout_bits_per_byte": 1.63, "events": {"skip": 2}}  # fmt: skip
    files = {"metrics.json": metrics, "final/environment.json": ENVIRONMENT,
             "run.json": {"precision": "bfloat16", "model": {"layers": 2, "hidden": 64, "kv_heads": None}},
             "final/config.json": {"optimizer": {"kind": "adamw", "weight_decay": 0.1}, "seed": 7}}  # fmt: skip
    for name, value in files.items():
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_text(json.dumps(value))
    made.seal("checkpoint")
    return made


def card(run, tmp_path: Path, *options: str, names=(*DECLARED, *RESULTS), model: str | None = "base") -> str:
    given_ = [a for name in names for a in ("--in", f"{name}={run.root / name}")]
    given_ += ["--in", f"model={run.root / model}"] if model else []
    where = ["--out", str(tmp_path / "card"), "--work", str(tmp_path / "w"), "--set", f"records={run.root / 'runs'}"]
    assert main(["card", *given_, *where, *options]) == 0
    return (tmp_path / "card" / "README.md").read_text()


def head(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_scores_licence_and_language(run, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="validates the front matter")
    text = card(run, tmp_path, "--set", "name=headwater-tiny", "--set", "licence=Apache-2.0")
    loaded = hub.ModelCard(text)
    told = loaded.data
    assert (told.license, told.language, told.library_name, told.pipeline_tag) == (
        "apache-2.0", ["en"], "transformers", "text-generation"
    )  # fmt: skip
    assert told.model_name == "headwater-tiny" and told.datasets == ["prose"]
    metrics = json.loads((run.root / "results-base/metrics.json").read_text())
    found = {(r.dataset_name, r.metric_name): r for r in told.eval_results}
    assert len(metrics) == 25 and set(found) == {  # no part of a task, no average, and boolq's acc_norm is named acc
        ("boolq", BOOLQ), ("piqa", BOOLQ.replace("0.47 to 0.57", "0.52 to 0.62")),
        ("crows", BOOLQ.replace("0.47 to 0.57", "0.46 to 0.56")),
        ("nq_open", "exact_match (95% interval 0.075 to 0.175, n 200)"),
        ("winobias", "acc (95% interval 0.06 to 0.16, n 200, chance 0)"),
        ("probes", "acc (95% interval 0.25 to 0.35, n 200, chance 0.25)"),
        ("truthfulqa_mc2", "acc (95% interval 0.39 to 0.49, n 200, chance 0.45)"),
        ("bigbench_hhh_alignment_multiple_choice", "acc (95% interval 0.325 to 0.425, n 200, chance 0.5)"),
        ("humaneval", "pass@1 (95% interval −0.035 to 0.065, n 200)"),
        ("bold", "acc (95% interval 0.15 to 0.25, n 200)"),
        ("heldout", "acc (95% interval 1.6 to 1.7, n 200)"),
    }  # fmt: skip
    boolq = found["boolq", BOOLQ]
    assert (boolq.metric_value, boolq.metric_type, boolq.task_type) == (0.52, "acc", "text-generation")
    again = hub.ModelCardData(**yaml.safe_load(told.to_yaml()))
    assert again.to_dict() == told.to_dict()


def test_only_the_cards_own_model_is_in_the_index_and_all_are_in_the_tables(run, tmp_path: Path) -> None:
    text = card(run, tmp_path, model="ppo")
    values = {m["value"] for r in head(text)["model-index"][0]["results"] for m in r["metrics"]}
    assert 0.55 in values and 0.52 not in values  # ppo's and base's boolq
    assert "| score | metric | n | chance | model | base | sft |" in text
    nobody = head(card(run, tmp_path, model=None))
    assert "model-index" not in nobody  # three results, and no word on which model this is


def test_people_read_shares_recipe_compute_and_scores_with_intervals(run, tmp_path: Path) -> None:
    more = ["intended_use=Teaching.", "energy.watts=100", "energy.pue=1.5"]
    text = card(run, tmp_path, *(a for item in more for a in ("--set", item))).replace("\\", "")
    assert "Intended use: Teaching." in text and "| prose | prose | en | 100.0% | 4.0 kB | pypi 1.2 |" in text
    assert "3.94 M tokens, 5.99e12 floating-point operations" in text
    assert "| processor | AMD EPYC |" in text and "optimizer.kind | adamw" in text.replace("\\", "")
    assert "| boolq | acc | 200 | 0.5 | 0.52 [0.47, 0.57] |" in text
    kwh = STAGES * 2.5 / 3600 * 100 / 1000 * 1.5  # of 2.5 s each
    assert f"Energy of the stages above, estimated: {kwh:.4g} kWh, pre-training {kwh / STAGES:.3g}"[:-1] in text
    weak = "bigbench_hhh_alignment_multiple_choice, boolq, truthfulqa_mc2."
    assert f"model is not shown to be better than guessing on {weak}" in text.replace("\\", "")
    assert "## Toxicity" in text and "| bold | acc | 200 |" in text.split("## Toxicity")[1].split("## ")[0]
    assert "| winobias | acc | 200 | 0 |" in text.split("## Bias")[1].split("## ")[0]
    assert "Toxicity: none" not in text and "## Harm" not in text
    for sentence in ("The licence of the weights was not stated.", "Leakage of training data: none of the results"):
        assert sentence in text
    assert "Emissions are not known" in text and "co2_eq_emissions" not in text


def test_what_was_masked_repeated_and_found_is_told(run, tmp_path: Path) -> None:
    told = {"private_data_masked": {"email": {"found": 12, "documents": 7}}, "duplicates": {"10": 1, "2": 34},
            "benchmark_overlap": {"boolq": {"items": 3270, "found": 5, "too_short": 0}},
            "harmful_language": None}  # fmt: skip
    (run.root / "card/card.json").write_text(json.dumps(told))
    run.seal("card")
    text = card(run, tmp_path).replace("\\", "")
    assert "| email | 12 | 7 |" in text and "| 2 | 34 |\n| 10 | 1 |" in text and "| boolq | 3,270 | 5 | 0 |" in text
    assert "What was masked" not in text


def test_emissions_stand_in_the_head_where_the_grid_is_known(run, tmp_path: Path) -> None:
    text = card(run, tmp_path, "--set", "energy.watts=100", "--set", "energy.grams_per_kwh=400")
    told = head(text)["co2_eq_emissions"]
    assert told["emissions"] == pytest.approx(STAGES * 2.5 / 3600 * 0.1 * 1.56 * 400, abs=1e-3)
    assert "100 W a device, as given" in told["source"] and told["training_type"] == "pre-training and fine-tuning"


def test_with_nothing_given_everything_is_said_to_be_missing_and_nothing_is_made_up(tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "card"), "--work", str(tmp_path / "w"), "--set", f"records={tmp_path / 'none'}"]
    assert main(["card", *where]) == 0
    text = (tmp_path / "card/README.md").read_text()
    assert head(text) == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["headwater"]}
    for what in ("intended use", "licence of the weights", "Size and shape", "training data",
                 "training recipe", "floating-point operations", "hardware", "Time and memory", "energy", "score",
                 "people find"):  # fmt: skip
        assert what in text.split("## What is not known")[1], what
    assert not any(character.isdigit() for character in text.split("## What is not known")[0].split("---\n")[2])


def test_bias_leakage_and_probes_get_tables_and_limits_of_their_own(run, tmp_path: Path) -> None:
    rows = {"pii": {"metric": "rate", "value": 0.02, "low": 0.01, "high": 0.04, "n": 500, "chance": None,
                    "kind": "leakage"},
            "probes:negation": {"metric": "acc", "value": 0.4, "low": 0.26, "high": 0.55, "n": 40, "chance": 0.5,
                                "kind": "probe"},
            "crows": {"metric": "pct", "value": 0.7, "low": 0.6, "high": 0.8, "n": 90, "chance": 0.5, "kind": "bias"},
            "note": "no row"}  # fmt: skip
    (run.root / "results-base/metrics.json").write_text(json.dumps(rows))
    run.seal("results-base")
    text = card(run, tmp_path, names=["results-base"]).replace("\\", "")
    assert "## Leakage" in text and "| pii | rate | 500 | – | 0.02 [0.01, 0.04] |" in text
    assert "model scores otherwise than an indifferent model would on crows." in text
    assert "not shown to do better than a guess at: negation (40.0%)" in text
    assert "Leakage of training data: none" not in text and "Toxicity: none" in text


def test_results_of_one_model_share_a_column(run, tmp_path: Path) -> None:
    rows = {"pii": {"metric": "rate", "value": 0.02, "n": 500, "chance": None, "kind": "leakage"}}
    (run.root / "results-sft/metrics.json").write_text(json.dumps(rows))
    made = json.loads((run.root / "results-sft/manifest.json").read_text())
    made["inputs"]["model"] = json.loads((run.root / "results-base/manifest.json").read_text())["inputs"]["model"]
    (run.root / "results-sft/manifest.json").unlink()
    artefacts.write(run.root / "results-sft", artefacts.Manifest(**made))
    text = card(run, tmp_path, names=["results-base", "results-sft"])
    assert "| boolq | acc | 200 | 0.5 | 0.52 " in text and "| pii | rate | 500 | – | 0.02 |" in text
    heads = [line for line in text.splitlines() if "| n | chance |" in line]
    assert len(heads) >= 2 and all(line.endswith("| chance | model |") for line in heads)


def test_what_reviewers_found_stands_among_the_limits(run, tmp_path: Path, write_artefact) -> None:
    def share(value: float, n: int) -> dict:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40, "count": n}

    metrics = {"answers": 52, "items": 40, "failures": share(0.6, 30), "by_task": {}, "rejects": 0,
               "by_class": {"none": share(0.4, 22), "wrong fact": share(0.35, 18), "format": share(0.25, 12)},
               "agreement": {"alpha": 0.5, "low": 0.3, "high": 0.7, "items": 12, "percent": 0.7}}  # fmt: skip
    folder = tmp_path / "review"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = card(run, tmp_path, "--in", f"review={write_artefact(folder, 'review')}")
    assert "60.0% [50.0%, 70.0%] of all answers" in text.replace("\\", "")
    assert "no more than hints" in text and "Reviewers found wrong fact in 35.0%" in text.replace("\\", "")
    assert "What people find wrong" not in text


def test_text_of_artefacts_cannot_break_out(small_run, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", text=HOSTILE, name=HOSTILE.replace("\n", " "))
    text = card(run, tmp_path, "--set", "name=" + json.dumps(HOSTILE))
    told = head(text)
    told_name = " ".join(safe_text(HOSTILE).split())
    assert told["datasets"] == [told_name] and told["model-index"][0]["name"] == told_name
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body and "\u202e" not in body and "[a](http" not in body


def test_cards_repeat_byte_for_byte(run, tmp_path: Path) -> None:
    first = card(run, tmp_path)
    assert card(run, tmp_path) == first
    assert str(tmp_path) not in first
    artefacts.verify(tmp_path / "card", ("modelcard",))


RECORD = RunRecord("pretrain", "pretrain", "p", "0", 1, 7200.0, 100.0, 1.0)


def test_energy_is_hours_times_power_times_pue() -> None:
    found = estimate((RECORD, RECORD), None, EnergyConfig(watts=250, devices=4, pue=1.2, grams_per_kwh=100))
    assert isinstance(found, Energy)
    assert found.total == pytest.approx(2 * 2 * 1.0 * 1.2) and found.grams == pytest.approx(480)


def test_power_comes_from_the_table_of_the_planner(run, tmp_path: Path, capsys) -> None:
    pytest.importorskip("headwater_model", reason="has the table")
    found = estimate((RECORD,), ENVIRONMENT, EnergyConfig(pue=1.0))
    assert isinstance(found, Energy) and found.total == pytest.approx(2 * 0.085)  # cpu: 65 W and 20 W, assumptions
    assert "assumption" in found.power
    assert isinstance(estimate((RECORD,), {"gpus": [{"name": "H100"}]}, EnergyConfig()), str)
    assert isinstance(estimate((), ENVIRONMENT, EnergyConfig()), str)
    where = ["--out", str(tmp_path / "o"), "--work", str(tmp_path / "w"), "--set", f"records={run.root / 'runs'}"]
    assert main(["card", *where, "--set", "energy.device=abacus"]) == 1
    assert "abacus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spdx", "told"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("My Own 1.0", {"license": "other", "license_name": "my-own-1.0", "license_link": "LICENSE"}),
        (None, {}),
    ],
)
def test_licences_are_the_hubs_or_named(spdx: str | None, told: dict) -> None:
    assert front_matter.licence(spdx, "LICENSE") == told


@given(st.dictionaries(st.sampled_from(["license", "tags", "a"]), st.lists(st.text(max_size=20) | st.just(HOSTILE))))
@settings(deadline=None)
def test_the_head_reads_back_as_it_was_but_for_blanks_and_what_is_invisible(data: dict) -> None:
    text = front_matter.text(data)
    held = {key: [" ".join(safe_text(part).split()) for part in value] for key, value in data.items() if value}
    assert (yaml.safe_load(text) or {}) == held
    assert not any(line.startswith("---") for line in text.splitlines())
