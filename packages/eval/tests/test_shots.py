"""Solved examples before a question: the right number, one choice or a draw each, never the question itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_eval import engine
from headwater_eval._contracts.errors import UserError
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.lm import HeadwaterLM
from headwater_eval.shots import SAMPLERS
from headwater_eval.tasks import benchmark_task

PIQA = BENCHMARKS["piqa"]


def piqa(n: int, name: str = "piqa") -> list[dict]:
    return [
        {"id": f"{name}-{i}", "task": "piqa", "row": {"goal": f"goal {i}", "sol1": f"one {i}", "sol2": f"two {i}",
         "label": i % 2}, "query": "", "choices": ["", ""], "label": i % 2}
        for i in range(n)
    ]  # fmt: skip


def prompts(task, n: int) -> list[str]:
    return [task.fewshot_context(doc, n) for doc in task.eval_docs]


def shown(prompt: str) -> list[str]:
    return [part.split("\n")[0].removeprefix("Question: ") for part in prompt.split("\n\n")[:-1]]


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_prompt_shows_n_solved_examples_and_never_its_own_question(n: int, sampler: str) -> None:
    items = piqa(8)
    for i, prompt in enumerate(prompts(benchmark_task(PIQA, items, n, sampler=sampler), n)):
        assert len(set(shown(prompt))) == n and f"goal {i}" not in shown(prompt)
        assert prompt.endswith(f"Question: goal {i}\nAnswer:")
        first = int(shown(prompt)[0].split()[1])
        assert prompt.startswith(f"Question: goal {first}\nAnswer: {'two' if first % 2 else 'one'} {first}\n\n")


def test_the_same_questions_under_another_name_and_other_ids_are_not_shown_either() -> None:
    """The training file is the test file under another name: other ids, other blanks and letter case, other order."""
    items = piqa(4)
    train = [{**item, "id": f"train-{item['id']}", "row": {**item["row"], "goal": f"Goal  {i} "}}
             for i, item in reversed(list(enumerate(piqa(4, "train"))))]  # fmt: skip
    for sampler in SAMPLERS:
        for i, prompt in enumerate(prompts(benchmark_task(PIQA, items, 3, train, sampler), 3)):
            assert f"goal  {i}" not in prompt.lower() and len(shown(prompt)) == 3
    with pytest.raises(UserError, match="4 shots asked for, but there are only 3 rows"):
        benchmark_task(PIQA, items, 4, train)


@settings(deadline=None, max_examples=30)
@given(
    asked=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    pool=st.lists(st.integers(0, 5), max_size=8),
    n=st.integers(1, 4),
    sampler=st.sampled_from(SAMPLERS),
)
def test_whatever_the_pool_a_prompt_has_n_other_questions_or_the_run_is_refused(asked, pool, n, sampler) -> None:
    all_items = piqa(6)
    items, drawn_from = [all_items[i] for i in asked], [all_items[i] for i in pool]
    enough = all(len(set(pool) - {i}) >= n for i in asked)
    try:
        task = benchmark_task(PIQA, items, n, drawn_from, sampler)
    except UserError:
        assert not enough
        return
    assert enough
    for i, prompt in zip(asked, prompts(task, n), strict=True):
        assert len(set(shown(prompt))) == n and set(shown(prompt)) <= {f"goal {j}" for j in set(pool) - {i}}


def test_fixed_shots_are_one_prefix_whatever_the_order_of_the_file_and_first_n_keeps_the_files_order() -> None:
    items, pool = piqa(3), piqa(40)[3:]
    fixed = prompts(benchmark_task(PIQA, items, 5, pool), 5)
    prefixes = {prompt.rsplit("\n\n", 1)[0] for prompt in fixed}
    assert len(prefixes) == 1 and fixed == prompts(benchmark_task(PIQA, items, 5, pool[::-1]), 5)
    assert fixed != prompts(benchmark_task(PIQA, items, 5, pool, seed=7), 5)
    first = prompts(benchmark_task(PIQA, items, 2, pool, "first_n"), 2)
    assert all(shown(prompt) == ["goal 3", "goal 4"] for prompt in first)
    each = prompts(benchmark_task(PIQA, items, 5, pool, "per_item"), 5)
    assert len({prompt.rsplit("\n\n", 1)[0] for prompt in each}) == 3
    assert each == prompts(benchmark_task(PIQA, items[:3], 5, pool, "per_item"), 5)


def test_a_row_that_stands_twice_in_the_pool_is_shown_once() -> None:
    pool = [*piqa(3), *piqa(3)]
    for prompt in prompts(benchmark_task(PIQA, piqa(3), 2, pool), 2):
        assert len(set(shown(prompt))) == 2


def test_shots_of_mmlu_come_from_the_tested_rows_subject() -> None:
    def item(i: int, subject: str) -> dict:
        row = {"question": f"{subject} {i}", "subject": subject, "choices": list("wxyz"), "answer": i % 4}
        return {"id": f"{subject}-{i}", "task": "mmlu", "row": row, "choices": list("ABCD"), "label": i % 4}

    items = [item(0, "anatomy"), item(0, "world_religions")]
    pool = [item(i, subject) for i in range(1, 6) for subject in ("anatomy", "world_religions")]
    first, second = prompts(benchmark_task(BENCHMARKS["mmlu"], items, 5, pool, "first_n"), 5)
    assert first.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\nanatomy 1\nA. w"
    )
    assert second.startswith("The following are multiple choice questions (with answers) about world religions.\n\n")
    assert "religions" not in first and second.count("Answer: ") == 5
    with pytest.raises(UserError, match="6 shots asked for, but there are only 5"):
        benchmark_task(BENCHMARKS["mmlu"], items, 6, pool)


def test_the_description_of_mmlu_is_the_one_of_lm_evals_57_files() -> None:
    subject = engine.load_yaml(engine.STOCK_TASKS / BENCHMARKS["mmlu_us_foreign_policy"].stock, resolve_func=False)
    row = {"question": "q", "subject": "us_foreign_policy", "choices": list("wxyz"), "answer": 0}
    task = benchmark_task(BENCHMARKS["mmlu"], [{"id": "x", "row": row}])
    assert task.fewshot_context(task.eval_docs[0], 0).startswith(subject["description"] + "q\n")


def test_no_other_turn_of_a_tested_conversation_is_shown() -> None:
    """A later turn holds the earlier ones with their answers."""
    coqa = BENCHMARKS["coqa"]
    items = [
        {"id": f"{story}-{turn}", "task": "coqa", "passage": f"Story {story}.", "cluster": story, "query": f"q{turn}?",
         "answers": [f"{story} says {turn}"], "history": [[f"q{t}?", f"{story} says {t}"] for t in range(turn)]}
        for story in "abc" for turn in range(3)
    ]  # fmt: skip
    for item, prompt in zip(items, prompts(benchmark_task(coqa, items, 2), 2), strict=True):
        examples = prompt.removesuffix(prompt[prompt.rindex(f"Story {item['cluster']}.") :])
        assert f"Story {item['cluster']}." not in examples and examples.count("Story") == 2
        assert item["answers"][0] not in prompt.split("A:")[-1]
    with pytest.raises(UserError, match="only 6 rows"):
        benchmark_task(coqa, items, 7)


def test_partial_evaluation_shows_the_whole_sentence_and_leaves_out_the_tested_one() -> None:
    rows = [{"sentence": f"The cup {i} fell on the bag because _ was big.", "option1": "the cup", "option2": "the bag",
             "answer": "12"[i % 2]} for i in range(3)]  # fmt: skip
    task = benchmark_task(BENCHMARKS["winogrande"], [{"id": str(i), "row": row} for i, row in enumerate(rows)], 2)
    contexts = task.fewshot_context(task.eval_docs[0], 2)
    assert len(contexts) == 2 and all("The cup 1 fell on the bag because the bag was big." in c for c in contexts)
    assert all(c.count("The cup 0") == 1 for c in contexts)


SPANS = {"number": "", "spans": ["x", "y"], "date": {"day": "", "month": "", "year": ""}}


@pytest.mark.parametrize(
    ("name", "rows", "example"),
    [
        ("webqs", [{"question": f"q{i}?", "answers": ["b b", "b", f"a{i}"]} for i in range(3)],
         "Question: q1?\nAnswer: a1\n\n"),
        ("toxigen", [{"text": f"t{i}", "toxicity_ai": 5.0, "toxicity_human": float(i)} for i in range(3)],
         "Statement: 't1' Yes\n\n"),
        ("drop", [{"query_id": str(i), "passage": f"p{i}", "question": "q?", "answer": SPANS,
                   "validated_answers": {"number": [], "spans": [], "date": []}} for i in range(3)],
         "p1 q? x, y\n\n"),
    ],
)  # fmt: skip
def test_what_stock_definitions_cannot_show_as_a_shot_is_shown(name: str, rows: list, example: str, bigram) -> None:
    items = [{"id": str(i), "task": name, "row": row, "answers": ["x"]} for i, row in enumerate(rows)]
    task = benchmark_task(BENCHMARKS[name], items, 2)
    assert example in task.fewshot_context(task.eval_docs[0], 2)
    samples = engine.evaluate(HeadwaterLM(bigram), {name: task}, bootstrap_iters=0)["samples"][name]
    assert len(samples) == 3 and example in samples[0]["arguments"][0][0]


def test_examples_that_a_definition_names_itself_are_shown_first() -> None:
    named = [{"goal": f"named {i}", "sol1": "a", "sol2": "b", "label": 0} for i in range(2)]
    benchmark = replace(PIQA, repair={"fewshot_config": {"samples": named}})
    task = benchmark_task(benchmark, piqa(3), 2)
    assert all(shown(prompt) == ["named 0", "named 1"] for prompt in prompts(task, 2))
    assert all("named" not in prompt for prompt in prompts(benchmark_task(benchmark, piqa(5), 3), 3))


def test_rows_for_shots_lie_apart_from_the_items(tmp_path: Path, write_jsonl) -> None:
    from headwater_eval.items import load, load_shots

    write_jsonl(tmp_path / "items/piqa.jsonl", piqa(2))
    write_jsonl(tmp_path / "items/shots/piqa.jsonl", piqa(4, "shot"))
    assert set(load(tmp_path / "items")) == {"piqa"}
    assert [item["id"] for item in load_shots(tmp_path / "items")["piqa"]] == [f"shot-{i}" for i in range(4)]
