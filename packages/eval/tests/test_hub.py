"""Files in the hub's format: every stock task makes an item of such a row, and asks what lm-eval asks."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headwater_eval import engine
from headwater_eval._contracts.errors import UserError
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.hub import read_items
from headwater_eval.lm import HeadwaterLM
from headwater_eval.scores import sample_rows, scores_of
from headwater_eval.tasks import benchmark_task

ROWS = yaml.safe_load((Path(__file__).parent / "data/hub_rows.yaml").read_text())
SOLO = {b.name for b in BENCHMARKS.values() if b.stock and b.hub and not b.family}


LEFT_OUT_OF_RESULTS = ("custom_dataset", "fewshot_config")  # by `evaluate`


def test_there_is_a_row_of_every_stock_task_and_of_every_family() -> None:
    families = {b.family for b in BENCHMARKS.values() if b.family}
    assert set(ROWS) >= SOLO
    assert {BENCHMARKS[name].family for name in ROWS} >= families


def items_of(name: str, rows: list[dict], folder: Path) -> tuple[list[dict], list]:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_items(BENCHMARKS[name], [path], name)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_of_the_hub_becomes_an_item_that_is_asked_and_scored(name: str, tmp_path: Path, bigram) -> None:
    benchmark, case = BENCHMARKS[name], ROWS[name]
    items, rejects = items_of(name, [case["row"]] * 2, tmp_path)
    assert not rejects and [item["id"] for item in items] == [f"{name}-00001", f"{name}-00002"]
    item = items[0]
    right = item["choices"][item["label"]] if "choices" in item else item["answers"][0]
    assert (item["query"].endswith(case["ends"]), right) == (True, case["right"])
    assert item["text"] == case["words"] and item["row"] == case["row"]
    lm, task = HeadwaterLM(bigram), benchmark_task(benchmark, items)
    results = engine.evaluate(lm, {name: task}, bootstrap_iters=0)
    logged = results["samples"][name]
    rows = sample_rows(benchmark, items, logged)
    assert rows[0]["prompt"].endswith(case["ends"]) or not item["query"]
    scores = scores_of(benchmark, items, rows)
    assert scores[name]["n"] == 2 and all(row["kind"] == benchmark.kind for row in scores.values())
    json.dumps([rows, scores], allow_nan=False)  # a finished part is kept as JSON
    config = {key: value for key, value in results["configs"][name].items() if key not in LEFT_OUT_OF_RESULTS}
    assert " at 0x" not in json.dumps(config, default=str)  # an address would differ from run to run
    headline = f"{benchmark.metric},{logged[0]['filter']}"
    assert scores[name]["value"] == pytest.approx(results["results"][name][headline])


@pytest.mark.parametrize("name", ["mmlu_anatomy", "arc_easy", "hellaswag", "winogrande", "gsm8k"])
def test_prompts_with_the_first_shots_are_those_that_lm_eval_builds_from_the_same_files(
    name: str, tmp_path: Path
) -> None:
    """lm-eval reads the files itself: its own YAML, with the hub's data set replaced by them."""
    benchmark, row = BENCHMARKS[name], ROWS[name]["row"]
    column = benchmark.words[0]
    files = {}
    for split, labels in (("test", ["one", "two"]), ("train", ["three", "four", "five"])):
        rows = [{**row, column: f"{label} {row[column]}"} for label in labels]
        if name == "hellaswag":
            rows = [{**r, "ctx_a": r["ctx"]} for r in rows]
        files[split] = tmp_path / f"{split}.jsonl"
        files[split].write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = engine.load_yaml(engine.STOCK_TASKS / benchmark.stock, resolve_func=True)
    shots = {"sampler": "first_n", "split": "train"}
    config.update(dataset_path="json", dataset_name=None, test_split="test", validation_split=None,
                  training_split="train", fewshot_split="train", fewshot_config=shots, num_fewshot=2,
                  dataset_kwargs={"data_files": {split: str(path) for split, path in files.items()}})  # fmt: skip
    config.pop("tag", None)
    stock = engine.ConfigurableTask(config=config)
    items, pool = (read_items(benchmark, [files[split]], name)[0] for split in ("test", "train"))
    ours = benchmark_task(benchmark, items, 2, pool, "first_n")
    for theirs, own in zip(stock.eval_docs, ours.eval_docs, strict=True):
        assert ours.fewshot_context(own, 2) == stock.fewshot_context(theirs, 2)
        assert ours.fewshot_context(own, 0) == stock.fewshot_context(theirs, 0)


def test_the_catalogue_names_the_data_sets_and_splits_that_lm_eval_names() -> None:
    for benchmark in BENCHMARKS.values():
        if not benchmark.stock or not benchmark.hub:
            continue
        config = engine.load_yaml(engine.STOCK_TASKS / benchmark.stock, resolve_func=False)
        asked = config.get("test_split") or config.get("validation_split")
        assert benchmark.split == asked, benchmark.name
        if benchmark.family == "arithmetic":  # a file, not a data set
            file = config["dataset_kwargs"]["data_files"]["validation"]
            assert file.endswith(f"{benchmark.hub}/data/{benchmark.hub_config}.jsonl")
        else:
            name = config.get("dataset_name") or ""
            assert benchmark.hub == config["dataset_path"], benchmark.name
            assert benchmark.hub_config == ("all" if benchmark.name == "mmlu" else name), benchmark.name
        assert config.get("task", benchmark.name) == benchmark.name


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_json_lines_json_and_parquet_give_the_same_items(ending: str, tmp_path: Path) -> None:
    rows = [ROWS["arc_easy"]["row"], {**ROWS["arc_easy"]["row"], "answerKey": "D"}]
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows) if ending == ".jsonl" else json.dumps(rows))
    items, rejects = read_items(BENCHMARKS["arc_easy"], [path], "arc_easy")
    assert not rejects and [item["label"] for item in items] == [0, 3]
    assert items[0]["row"] == rows[0]


def test_rows_that_lm_evals_functions_cannot_read_are_set_aside_one_by_one(tmp_path: Path) -> None:
    good = ROWS["winogrande"]["row"]
    rows = [good, {**good, "sentence": "no blank"}, good, {**good, "answer": ""}, {"other": 1}]
    items, rejects = items_of("winogrande", rows, tmp_path)
    assert [item["id"] for item in items] == ["winogrande-00001", "winogrande-00003"]
    assert [reject.row for reject in rejects] == [2, 4, 5] and "no field sentence" in rejects[2].reason
    (tmp_path / "broken.jsonl").write_bytes(b'{"cut\n\xff\n[1]\n')
    assert len(read_items(BENCHMARKS["winogrande"], [tmp_path / "broken.jsonl"], "w")[1]) == 3


def test_a_row_that_breaks_lm_evals_template_is_set_aside(tmp_path: Path) -> None:
    good = ROWS["multirc"]["row"]
    items, rejects = items_of("multirc", [good, {**good, "answer": "it''' [is"}, good], tmp_path)
    assert [item["id"] for item in items] == ["multirc-00001", "multirc-00003"]
    assert rejects[0].row == 2 and rejects[0].reason.startswith("SyntaxError")


def test_another_data_sets_file_is_refused_at_once_with_the_column_that_it_lacks(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answers": ["a"]} for i in range(3000)]  # SQuAD-like rows where BoolQ's are due
    items, rejects = items_of("boolq", rows, tmp_path)
    assert not items and len(rejects) == 3000 and "passage" in rejects[0].reason


def test_rows_without_choices_are_no_items_of_a_task_that_leaves_them_out(tmp_path: Path) -> None:
    name = "bigbench_kanji_ascii_multiple_choice"
    good = ROWS["bigbench_cause_and_effect_multiple_choice"]["row"]
    items, rejects = items_of(name, [good, {**good, "multiple_choice_targets": []}], tmp_path)
    assert len(items) == 1 and "leaves it out" in rejects[0].reason


def test_a_file_that_is_not_what_its_name_says_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_items(BENCHMARKS["piqa"], [tmp_path / "x.parquet"], "piqa")


def test_the_score_of_a_perfect_translation_is_sacrebleus_and_f1_of_cb_is_scikit_learns(bigram) -> None:
    from headwater_eval.scores import metric_estimate, translation_estimate

    pairs = [["The cat sat on the mat.", "The cat sat on the mat."], ["A dog ran home today.", "A dog ran away today."]]
    import sacrebleu

    expected = sacrebleu.corpus_bleu([w for _, w in pairs], [[r for r, _ in pairs]]).score
    estimate = translation_estimate("bleu", pairs)
    assert estimate.value == pytest.approx(expected) and estimate.low <= expected <= estimate.high
    # gold 0 0 1 2, picked 0 1 1 2: F1 of the classes 2/3, 2/3, 1
    rows = [{"doc_id": str(i), "cluster": None, "metrics": {"f1": [float(g), float(p)]}}
            for i, (g, p) in enumerate([(0, 0), (0, 1), (1, 1), (2, 2)])]  # fmt: skip
    assert metric_estimate(BENCHMARKS["cb"], "f1", rows).value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
