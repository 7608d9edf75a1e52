"""Probes: what they ask, that guessing passes as many as it should, and how they are counted."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from headwater_eval import engine
from headwater_eval._contracts.errors import UserError
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.config import ItemsConfig
from headwater_eval.items import find, read
from headwater_eval.lm import HeadwaterLM
from headwater_eval.locate import Found
from headwater_eval.probes import benchmark, families
from headwater_eval.readers import Reject
from headwater_eval.scores import average_score, sample_rows
from headwater_eval.tasks import benchmark_task

CHOICE, WRITTEN = BENCHMARKS["probes"], BENCHMARKS["probes_written"]


def read_items(bench, path: Path) -> tuple[list[dict], list[Reject]]:
    """A package's file."""
    return read(bench, Found([path], [], packaged=True))


@pytest.fixture(scope="module")
def items() -> list[dict]:
    found, rejects = read_items(CHOICE, benchmark.PACKAGED)
    assert not rejects
    return found


@pytest.fixture(scope="module")
def written() -> list[dict]:
    found, rejects = read_items(WRITTEN, benchmark.PACKAGED)
    assert not rejects
    return found


def evaluate(bench, items: list[dict], lm) -> tuple[list[dict], dict]:
    logged = engine.evaluate(lm, {bench.name: benchmark_task(bench, items)}, bootstrap_iters=0)["samples"][bench.name]
    rows = sample_rows(bench, items, logged)
    return rows, benchmark.pass_rates(bench, items, rows)


class Oracle(engine.TemplateLM):
    """Finds a continuation likely when `knows` says so; writes what it is told to."""

    def __init__(self, knows, writes=lambda prompt: ""):
        super().__init__()
        self.knows, self.writes = knows, writes

    eot_token_id = 0

    def tok_encode(self, string, add_special_tokens=None, **_):
        return list(string.encode())

    def loglikelihood(self, requests, disable_tqdm=True):
        return [(self.knows(*r.args), False) for r in requests]

    def _loglikelihood_tokens(self, requests, **_):
        raise NotImplementedError

    loglikelihood_rolling = _loglikelihood_tokens

    def generate_until(self, requests, disable_tqdm=True):
        return [self.writes(r.args[0]) for r in requests]


def worked_out(prompt: str) -> str | None:
    """The right answer of a generated probe, worked out by a second way; None for the others."""
    prompt = prompt.split("\n\n")[-1]
    number = {families.words_of(n): n for n in range(1000)}
    if m := re.fullmatch(r"(\d+) ([-+*]) (\d+) =", prompt):
        return str({"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[m[2]](int(m[1]), int(m[3])))
    if m := re.fullmatch(r"([a-z -]+?) (plus|minus) ([a-z -]+) is", prompt):
        return families.words_of(number[m[1]] + (1 if m[2] == "plus" else -1) * number[m[3]])
    if m := re.fullmatch(r"Of the numbers (.+) and (.+), the (larger|smaller) one is", prompt):
        pick = max if m[3] == "larger" else min
        return pick(m[1], m[2], key=lambda said: number[said] if said in number else int(said))
    if m := re.fullmatch(r"The numbers (.+) from the smallest to the largest:", prompt):
        return ", ".join(sorted(m[1].split(", "), key=int))
    if m := re.fullmatch(r"(.+)\. The number of times that (\w+) stands there is", prompt):
        return families.words_of(m[1].split(", ").count(m[2]))
    if m := re.fullmatch(r"Original: (.+)\nCopy:", prompt):
        return m[1]
    if m := re.fullmatch(r"Words: (.+)\nThe same words in reverse order:", prompt):
        return " ".join(reversed(m[1].split()))
    return None


def test_every_class_of_the_issue_is_there_and_none_is_small(items: list[dict]) -> None:
    sizes = Counter(item["category"] for item in items)
    assert {"addition_digits", "addition_words", "negation", "copying", "counting", "ordering", "comparison_digits",
            "plural_agreement"} <= set(sizes)  # fmt: skip
    assert min(sizes.values()) >= 12 and len(sizes) == 19
    assert {name for name, expects, n in benchmark.describe() if expects and n} == set(sizes)


def test_right_answers_are_right_worked_out_a_second_way(items: list[dict], written: list[dict]) -> None:
    checked = [(item, answer) for item in items if (answer := worked_out(item["query"])) is not None]
    assert len(checked) == 12 * 40
    assert all(item["choices"][item["label"]] == answer for item, answer in checked)
    assert len(written) == 12 * 40 and all(worked_out(item["query"]) == item["answers"][0] for item in written)


def test_the_prompt_of_a_written_probe_is_solved_examples_and_the_question(written: list[dict]) -> None:
    assert written[0]["query"] == "11 + 20 = 31\n\n7 + 16 = 23\n\n3 + 15 = 18\n\n5 + 7 = 12\n\n1 + 1 ="
    assert written[0]["answers"] == ["2"]
    logged = engine.evaluate(Oracle(None), {WRITTEN.name: benchmark_task(WRITTEN, written[:1])}, bootstrap_iters=0)
    prompt, options = logged["samples"][WRITTEN.name][0]["arguments"][0]
    assert prompt == written[0]["query"] and options["until"] == ["\n"] and not options["do_sample"]


def test_no_probe_stands_among_its_own_examples(written: list[dict]) -> None:
    for item in written:
        *shots, asked = item["query"].split("\n\n")
        assert shots and not any(shot.startswith(asked) for shot in shots)


def test_who_knows_all_passes_all(items: list[dict]) -> None:
    right = {(item["query"], f" {item['choices'][item['label']]}") for item in items}
    rows, scores = evaluate(CHOICE, items, Oracle(lambda prompt, text: 0.0 if (prompt, text) in right else -9.0))
    assert scores["probes"]["value"] == 1 and all(row["correct"] for row in rows)
    assert scores["probes:negation"]["n"] == 40 and scores["probes:negation"]["chance"] == 0.5
    assert scores["probes:addition_words"]["n"] == 40 and scores["probes:addition_words"]["chance"] == 0.25


def test_a_taste_for_words_passes_as_many_as_a_guess(items: list[dict]) -> None:
    tastes = 20
    for name in {item["category"] for item in items}:
        part = [item for item in items if item["category"] == name]
        passed = []
        for seed in range(tastes):  # some words are always likelier than others, whatever the prompt
            liking = {c: random.Random(f"{seed}{c}").random() for item in part for c in item["choices"]}
            passed += [max(item["choices"], key=liking.get) == item["choices"][item["label"]] for item in part]
        guess = sum(1 / len(item["choices"]) for item in part) / len(part)
        assert abs(sum(passed) / len(passed) - guess) < 0.1, name


def test_a_taste_for_short_or_long_answers_passes_little_more_than_a_guess(items: list[dict]) -> None:
    for name in {item["category"] for item in items} - {"sequences", "opposites"}:  # too few, and as they are
        part = [item for item in items if item["category"] == name]
        guess = sum(1 / len(item["choices"]) for item in part) / len(part)
        for sign in (1, -1):
            passed = 0.0
            for item in part:
                best = min(sign * len(c) for c in item["choices"])
                ties = [c for c in item["choices"] if sign * len(c) == best]
                passed += (item["choices"][item["label"]] in ties) / len(ties)
            assert passed / len(part) < guess + 0.2, (name, sign)


def test_negation_and_agreement_fail_whoever_likes_what_was_said_before(items: list[dict]) -> None:
    repeats = Oracle(lambda prompt, text: float(text.strip() in prompt))
    rows, scores = evaluate(CHOICE, [i for i in items if i["category"] == "negation"], repeats)
    assert scores["probes:negation"]["value"] == 0


def test_a_real_model_is_scored_by_class_with_intervals_and_counts_in_no_average(items: list[dict], bigram) -> None:
    lm = HeadwaterLM(bigram)
    some = [i for i in items if i["category"] in ("sequences", "negation")]
    rows, scores = evaluate(CHOICE, some, lm)
    for row in rows[:3]:
        pairs = [(lm.tok_encode(row["prompt"]), lm.tok_encode(f" {c}")) for c in row["choices"]]
        assert row["logprobs"] == pytest.approx([total for total, _ in lm.score(pairs)])
        assert row["correct"] == (row["logprobs"].index(max(row["logprobs"])) == row["label"])
    assert set(scores) == {"probes", "probes:sequences", "probes:negation"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in scores.values())
    assert average_score(scores) == {}


def test_written_answers_are_compared_as_people_would(written: list[dict]) -> None:
    rows, scores = evaluate(WRITTEN, written, Oracle(None, lambda prompt: f" {worked_out(prompt).upper()}. "))
    assert scores["probes_written"]["value"] == 1 and scores["probes_written"]["chance"] is None
    assert evaluate(WRITTEN, written[:20], Oracle(None, lambda prompt: "perhaps"))[1]["probes_written"]["value"] == 0
    assert benchmark.same("19.", "19") and not benchmark.same("190", "19") and not benchmark.same("", "19")


def test_a_file_of_ones_own_adds_replaces_and_removes(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "probes.yaml"
    path.parent.mkdir()
    path.write_text(
        "classes:\n  negation: null\n  sequences: {expects: x, items: [{prompt: a b, right: c, wrong: [d, e]}]}\n"
        "  greeting: {expects: answers a greeting, items: [{prompt: 'Hello,', right: hello, wrong: goodbye}]}\n"
        "  broken: {expects: x, family: cooking, items: 3}\n"
        "  blank: {expects: x, items: [{prompt: 'a ', right: b, wrong: c}]}\n"
        "  scarce: {expects: x, family: comparison, options: {low: 1, high: 2}, items: 9}\n"
    )
    assert find(tmp_path, ItemsConfig(tasks=["probes"]))["probes"].questions == [path]
    items, rejects = read_items(CHOICE, path)
    sizes = Counter(item["category"] for item in items)
    assert sizes["greeting"] == sizes["sequences"] == 1 and "negation" not in sizes and sizes["copying"] == 40
    assert len({item["id"] for item in items}) == len(items)
    reasons = {reject.reason.split(":")[0]: reject.reason for reject in rejects}
    assert "unknown family cooking" in reasons["class broken"] and "blank" in reasons["class blank"]
    assert "makes only 4 different probes, not 9" in reasons["class scarce"]
    path.write_text("packaged: false\nclasses: {only: {expects: x, items: [{prompt: a, right: b, wrong: c}]}}\n")
    assert [item["category"] for item in read_items(CHOICE, path)[0]] == ["only"]


@pytest.mark.parametrize("text", ["a: [", "- 1", "classes: [1]"])
def test_a_file_that_is_no_file_of_probes_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "probes.yaml").write_text(text)
    with pytest.raises(UserError, match=r"probes\.yaml"):
        list(benchmark.read(tmp_path / "probes.yaml"))


def test_entries_of_any_shape_are_refused_with_a_reason(tmp_path: Path) -> None:
    shapes = ["{}", "3", "{items: 4}", "{family: slots, items: 2}", "{family: arithmetic, options: {x: 1}, items: 2}",
              "{items: [{prompt: a}]}",
              "{family: slots, items: 1, options: {templates: [{prompt: '{x}', right: a, wrong: b}], vary: {}}}",
              "{family: arithmetic, items: many}", "[]", "{family: arithmetic, options: 5, items: 2}"]  # fmt: skip
    for shape in shapes:
        path = tmp_path / "probes.yaml"
        path.write_text(f"packaged: false\nclasses: {{c: {shape}}}\n")
        (found,) = list(benchmark.read(path))
        assert isinstance(found, Reject) and found.reason.startswith("class c:"), shape


def test_the_same_file_gives_the_same_probes(items: list[dict]) -> None:
    assert read_items(CHOICE, benchmark.PACKAGED)[0] == items
    text = json.dumps(items[0])
    assert '"query": "1 + 1 ="' in text  # pinned: another Python or another order must not draw others


@pytest.mark.parametrize(
    ("n", "said"), [(0, "zero"), (13, "thirteen"), (40, "forty"), (99, "ninety-nine"), (100, "one hundred"),
                    (342, "three hundred and forty-two")],
)  # fmt: skip
def test_numbers_in_words(n: int, said: str) -> None:
    assert families.words_of(n) == said
