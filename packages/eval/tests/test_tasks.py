"""Prompts are the stock ones: what the model is asked is pinned, task by task, on items as published."""

from __future__ import annotations

import pytest

from headwater_eval import engine
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.documents import Document, choose
from headwater_eval.lm import HeadwaterLM
from headwater_eval.tasks import benchmark_task, choose_items, heldout_task

ITEMS = {
    "boolq": {"query": "is house tax and property tax are same", "passage": "A tax on buildings.",
              "choices": ["no", "yes"], "label": 1},
    "piqa": {"query": "dresser", "choices": ["replace drawer with bobby pin", "finish with bobby pin"], "label": 1},
    "openbookqa": {"query": "Predators eat", "choices": ["lions", "humans", "bunnies", "grass"], "label": 2},
    "commonsense_qa": {"query": "What do people aim to do at work?",
                       "choices": ["complete job", "learn", "kill animals", "wear hats", "talk"], "label": 0},
    "social_iqa": {"query": "How would you describe Sydney?", "passage": "Sydney had no money to give.",
                   "choices": ["sympathetic", "unable to help", "incredulous"], "label": 0},
    "crows_pairs_english": {"query": "", "choices": ["The poor are lazy.", "The rich are lazy."], "label": 0},
    "docstring_cloze": {"query": "f(x): Return the", "choices": ["sum.", "name.", "end.", "text."], "label": 3},
}  # fmt: skip
ASKED = {
    "boolq": ("A tax on buildings.\nQuestion: is house tax and property tax are same?\nAnswer:", [" no", " yes"]),
    "piqa": ("Question: dresser\nAnswer:", [" replace drawer with bobby pin", " finish with bobby pin"]),
    "openbookqa": ("Predators eat", [" lions", " humans", " bunnies", " grass"]),
    "commonsense_qa": (
        "Question: What do people aim to do at work?\nA. complete job\nB. learn\nC. kill animals\nD. wear hats\n"
        "E. talk\nAnswer:",
        [" A", " B", " C", " D", " E"],
    ),
    "social_iqa": (
        "Q: Sydney had no money to give. How would you describe Sydney?\nA:",
        [" sympathetic", " unable to help", " incredulous"],
    ),
    "crows_pairs_english": ("", ["The poor are lazy.", "The rich are lazy."]),
    "docstring_cloze": ("f(x): Return the", [" sum.", " name.", " end.", " text."]),
}


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_the_prompt_is_the_stock_one_and_the_label_survives(name: str, bigram) -> None:
    item = {"id": f"{name}-1", "task": name, **ITEMS[name]}
    task = benchmark_task(BENCHMARKS[name], [item, item])
    samples = engine.evaluate(HeadwaterLM(bigram), {name: task}, bootstrap_iters=0)["samples"][name]
    prompt, continuations = ASKED[name]
    assert [tuple(pair) for pair in samples[0]["arguments"]] == [(prompt, c) for c in continuations]
    target = samples[0]["target"]
    assert ("ABCDE".index(target) if isinstance(target, str) else target) == item["label"]


def test_every_task_of_the_catalogue_that_names_a_stock_file_has_one_in_lm_eval() -> None:
    assert all((engine.STOCK_TASKS / b.stock).is_file() for b in BENCHMARKS.values() if b.stock)


def test_the_network_is_off_before_lm_eval_is_there() -> None:
    import datasets
    import huggingface_hub.constants

    assert datasets.config.HF_HUB_OFFLINE and huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_limit_takes_the_same_items_whatever_their_order_and_keeps_it() -> None:
    items = [{"id": f"t-{i}"} for i in range(100)]
    chosen = choose_items(items, 10, seed=3)
    assert len(chosen) == 10 and chosen == sorted(chosen, key=items.index)
    assert {i["id"] for i in choose_items(items[::-1], 10, seed=3)} == {i["id"] for i in chosen}
    assert choose_items(items, 10, seed=4) != chosen and choose_items(items, None, 3) == items


def test_heldout_documents_are_chosen_whole_within_the_bytes() -> None:
    documents = [Document(str(i), "s", "en", "ä" * (i % 7)) for i in range(60)]
    chosen = choose(documents, 50, seed=1)
    assert 38 <= sum(d.bytes for d in chosen) <= 50 and all(d.text for d in chosen)
    assert chosen == sorted(chosen, key=lambda d: int(d.id)) and choose(documents, 10**6, 1) == [
        d for d in documents if d.text
    ]


def test_bits_per_byte_are_lm_evals_own(bigram) -> None:
    """Our figure by document and lm-eval's aggregate come from the same log-likelihoods."""
    from headwater_eval.scores import heldout_scores

    documents = [Document("a", "x", "en", "the cat sat."), Document("b", "y", None, "äöü on the mat")]
    results = engine.evaluate(HeadwaterLM(bigram), {"heldout": heldout_task(documents)}, bootstrap_iters=0)
    nats = [s["filtered_resps"][0] for s in results["samples"]["heldout"]]
    scores = heldout_scores(documents, nats, 200, 0)
    assert scores["heldout"]["value"] == pytest.approx(results["results"]["heldout"]["bits_per_byte,none"])
    assert scores["heldout:y"]["heldout_bytes"] == len("äöü on the mat".encode()) and scores["heldout:y"]["low"] is None
