"""Paired comparison: published figures, hand counts, what the page and the JSON say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headwater_eval import samples
from headwater_eval._contracts import manifest as artefacts
from headwater_eval.cli import main
from headwater_eval.compare import paired


def test_mcnemar_on_the_approval_ratings_of_agresti() -> None:
    """Agresti 2013, Categorical Data Analysis, section 11.1.1: of 1,600 asked twice, 150 turned against, 86 turned for;
    the share fell by 0.04 with a standard error of 0.0095 and an interval of (0.06, 0.02); z = -4.17, p < 0.0001."""
    before = np.repeat([1.0, 1.0, 0.0, 0.0], [794, 150, 86, 570])
    after = np.repeat([1.0, 0.0, 1.0, 0.0], [794, 150, 86, 570])
    people = [f"{i:04d}" for i in range(1600)]
    found = paired.difference(before, after, people, 2000, seed=1)
    assert found.value == pytest.approx(-0.04) and found.stderr == pytest.approx(0.0095, abs=0.0004)
    assert (found.low, found.high) == (pytest.approx(-0.0587, abs=0.002), pytest.approx(-0.0213, abs=0.002))
    assert paired.mcnemar(86, 150) == pytest.approx(3.7e-5, rel=0.02)  # R: binom.test(86, 236)
    assert paired.mcnemar(86, 150) == pytest.approx(2 * stats.norm.cdf(-4.17), rel=0.3)


def test_mcnemar_of_few_items_is_the_binomial_test_by_hand() -> None:
    assert paired.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert paired.mcnemar(0, 0) == paired.mcnemar(3, 3) == 1.0


def test_the_permutation_test_on_darwins_plants_has_fishers_p() -> None:
    """Fisher 1935, The Design of Experiments, section 21: 15 pairs of plants whose differences sum to 314; 863 of the
    32,768 sums of the same numbers with other signs are as large, either way 1,726: p = 0.05267."""
    gaps = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], float)
    found = paired.sign_flip(np.zeros(15), gaps, [str(i) for i in range(15)], resamples=2**15, seed=1)
    assert found == pytest.approx(1726 / 32768, abs=1e-12)


def test_holms_adjustment_equals_that_of_r() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holms_p_values_keep_the_order_and_lie_between_raw_and_bonferroni(p: list[float]) -> None:
    adjusted = paired.holm(p)
    assert all(raw <= a <= min(1, len(p) * raw) + 1e-12 for raw, a in zip(p, adjusted, strict=True))
    assert [a for _, a in sorted(zip(p, adjusted, strict=True))] == sorted(adjusted)


def test_items_of_one_passage_count_as_one_draw() -> None:
    """Ten copies of each item in one passage tell no more than one: the interval stays as wide."""
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, 60).astype(float), rng.integers(0, 2, 60).astype(float)
    alone = paired.difference(before, after, [f"{i:02d}" for i in range(60)], 2000, seed=3)
    passages = [f"{i:02d}" for i in range(60) for _ in range(10)]
    tenfold = paired.difference(np.repeat(before, 10), np.repeat(after, 10), passages, 2000, seed=3)
    assert tenfold.low == pytest.approx(alone.low) and tenfold.high == pytest.approx(alone.high)
    p = paired.sign_flip(before, after, [f"{i:02d}" for i in range(60)], 5000, seed=1)
    assert paired.sign_flip(np.repeat(before, 10), np.repeat(after, 10), passages, 5000, seed=1) == pytest.approx(p)


def results(folder: Path, tasks: dict[str, list[tuple[str, float]]], **changes) -> Path:
    """A results artefact: task -> (item, score)."""
    rows = [
        {"task": task, "doc_id": item, "prompt": f"{item}?", "choices": ["a", "b"], "label": 1, "score": score,
         "correct": score == 1.0, "cluster": item[0] if task == "passages" else None} | changes
        for task, items in tasks.items() for item, score in items
    ]  # fmt: skip
    folder.mkdir(parents=True)
    samples.write(folder, rows)
    scores = {
        task: {"metric": "acc", "kind": "choice", "chance": 0.5, "value": float(np.mean([s for _, s in items]))}
        for task, items in tasks.items()
    }
    (folder / "metrics.json").write_text(json.dumps(scores))
    (folder / "results.json").write_text(json.dumps({"model": {"parameters": 1000}}))
    artefacts.write(folder, artefacts.Manifest("results", 2, "test", "0", "evaluate", {}))
    return folder


def compare(tmp: Path, *options: str, **runs: Path) -> dict:
    given = [part for name, folder in runs.items() for part in ("--in", f"{name}={folder}")]
    where = ["--out", str(tmp / "out"), "--work", str(tmp / "work"), "--set", "resamples=1000"]
    assert main(["compare", *given, *where, *options]) == 0
    return json.loads((tmp / "out/comparison.json").read_text())


def test_flips_differences_and_averages_of_every_pair(tmp_path: Path) -> None:
    right, wrong = [(f"i{i}", 1.0) for i in range(20)], [(f"i{i}", 0.0) for i in range(20)]
    half = [(f"i{i}", float(i < 10)) for i in range(20)]
    found = compare(
        tmp_path,
        sft=results(tmp_path / "sft", {"piqa": right, "boolq": half}),
        base=results(tmp_path / "base", {"piqa": wrong, "boolq": half}),
        ppo=results(tmp_path / "ppo", {"piqa": half, "boolq": half}),
    )
    assert list(found["tasks"]["piqa"]["scores"]) and found["tasks"]["piqa"]["chance"] == 0.5
    pairs = {(p["before"], p["after"]): p for p in found["pairs"]}
    assert list(pairs) == [("base", "ppo"), ("base", "sft"), ("ppo", "sft")]
    row = pairs["base", "sft"]["tasks"]["piqa"]
    assert (row["up"], row["down"], row["same"], row["test"]) == (20, 0, 0, "McNemar")
    assert row["p"] == pytest.approx(2 / 2**20) and row["p_holm"] == pytest.approx(4 / 2**20)
    assert row["difference"]["value"] == row["difference"]["low"] == row["difference"]["high"] == 1.0
    still = pairs["base", "sft"]["tasks"]["boolq"]
    assert (still["same"], still["p"], still["difference"]["value"]) == (20, 1.0, 0.0)
    assert pairs["base", "sft"]["average"]["value"] == 0.5
    assert pairs["base", "ppo"]["tasks"]["piqa"]["p"] == pytest.approx(2 / 2**10)
    page, text = (tmp_path / "out/index.html").read_text(), (tmp_path / "out/report.md").read_text()
    assert "<svg" in page and "sft against base: 2 tasks. Higher on piqa; lower on none;" in page
    assert "| piqa | 20 | +1.000 \\[+1.000, +1.000\\] | 20 | 0 | \\<0.0001 | \\<0.0001 | McNemar |" in text
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["pairs"]["base-sft"] == {"tasks": 2, "higher": 1, "lower": 0}


def test_the_categories_of_a_task_are_compared_on_request_and_count_in_no_average(tmp_path: Path, capsys) -> None:
    before, after = [(f"i{i}", 0.0) for i in range(8)], [(f"i{i}", 1.0) for i in range(8)]
    runs = {name: results(tmp_path / name, {"piqa": rows}, category="tools")
            for name, rows in (("base", before), ("sft", after))}  # fmt: skip
    plain = compare(tmp_path, **runs)
    found = compare(tmp_path, "--set", "by_category=[piqa]", **runs)
    (pair,), (alone,) = found["pairs"], plain["pairs"]
    assert set(pair["tasks"]) == {"piqa", "piqa:tools"} and set(alone["tasks"]) == {"piqa"}
    assert pair["tasks"]["piqa:tools"]["up"] == 8 and pair["average"] == alone["average"]
    assert pair["tasks"]["piqa"]["p_holm"] == pytest.approx(2 * alone["tasks"]["piqa"]["p"])
    capsys.readouterr()
    command = [f"--in={name}={folder}" for name, folder in runs.items()] + ["--out", str(tmp_path / "x")]
    assert main(["compare", *command, "--work", str(tmp_path / "work"), "--set", "by_category=[boolq]"]) == 2
    assert "boolq is in none of the results" in capsys.readouterr().err


def test_other_items_are_named_and_the_common_ones_compared(tmp_path: Path, capsys) -> None:
    first = results(tmp_path / "a", {"piqa": [("i1", 1.0), ("i2", 0.0), ("i3", 1.0)], "boolq": [("j", 1.0)]})
    second = results(tmp_path / "b", {"piqa": [("i2", 1.0), ("i3", 1.0)]}, prompt="asked otherwise")
    found = compare(tmp_path, base=first, sft=second)
    assert found["tasks"]["piqa"]["n"] == 2 and found["tasks"]["piqa"]["left_out"] == {"base": 1, "sft": 0}
    assert found["pairs"][0]["tasks"]["piqa"]["up"] == 1 and found["tasks"]["piqa"]["other_prompts"] == 2
    assert found["remarks"] == ["boolq: only base has it."]
    text = (tmp_path / "out/report.md").read_text()
    assert "left out 1 of base" in text and "2 of 2 items were asked in other words" in text
    where = [
        "--in",
        f"base={first}",
        "--in",
        f"sft={second}",
        "--out",
        str(tmp_path / "o"),
        "--work",
        str(tmp_path / "w"),
    ]
    assert main(["compare", *where, "--set", "items=same"]) == 1
    assert "the runs have other items (base 3, sft 2, 2 in common)" in capsys.readouterr().err


def test_passages_are_tested_by_permutation_and_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    items = [f"{p}{i}" for p in "abcdefgh" for i in range(4)]
    runs = {
        name: results(tmp_path / name, {"passages": [(item, round(float(rng.random()), 3)) for item in items]})
        for name in ("x", "y")
    }
    found = compare(tmp_path, **runs)
    assert found["pairs"][0]["tasks"]["passages"]["test"] == "permutation"
    assert found["tasks"]["passages"]["clusters"] == 8
    compare(tmp_path / "again", **dict(reversed(runs.items())))
    assert artefacts.read(tmp_path / "out").files == artefacts.read(tmp_path / "again/out").files


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, capsys, write_artefact) -> None:
    run = results(tmp_path / "a", {"piqa": [("i1", 1.0)]})
    other = results(tmp_path / "b", {"piqa": [("i1", 1.0)]}, label=0)
    (tmp_path / "ppmd").mkdir()
    (tmp_path / "ppmd/metrics.json").write_text("{}")
    write_artefact(tmp_path / "ppmd", "results")
    where = ["--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    for inputs, told in (
        (["--in", f"a={run}"], "needs two results"),
        (["--in", f"a={run}", "--in", f"b={other}"], "i1 of piqa: not the same item in a and b"),
        (["--in", f"a={run}", "--in", f"b={tmp_path / 'ppmd'}"], "no samples.parquet"),
        (["--in", f"a={run}", "--in", f"b={run}", "--set", "tasks=[boolq]"], "boolq: fewer than two"),
    ):
        assert main(["compare", *inputs, *where]) in (1, 2)
        error = capsys.readouterr().err.strip()
        assert told in error and "\n" not in error
