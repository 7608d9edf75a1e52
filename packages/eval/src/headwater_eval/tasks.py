"""Items and documents -> lm-eval tasks: the stock prompt and metric on local rows, or our own definition."""

from __future__ import annotations

from .benchmark import Benchmark
from .documents import Document, seeded_rank
from .engine import STOCK_TASKS, ConfigurableTask, Dataset, load_yaml

HELDOUT = "heldout"


def choose_items(items: list[dict], limit: int | None, seed: int) -> list[dict]:
    """At most `limit` items, by a seeded choice of ids, in their given order: the same for every model.

    Items of one `group` (a sentence with each of its pronouns) are drawn together, as far as the limit allows.
    """
    if limit is None or len(items) <= limit:
        return items
    ranked = sorted(items, key=lambda item: (seeded_rank(seed, item.get("group") or item["id"]), item["id"]))
    chosen = {item["id"] for item in ranked[:limit]}
    return [item for item in items if item["id"] in chosen]


def benchmark_task(benchmark: Benchmark, items: list[dict]) -> ConfigurableTask:
    """A zero-shot lm-eval task over these items; document i of it is items[i]."""
    return stock_task(benchmark, items) if benchmark.stock else own_task(benchmark, items)


def stock_task(benchmark: Benchmark, items: list[dict]) -> ConfigurableTask:
    """lm-eval's own definition, prompt and metrics untouched, over our rows in place of the hub's."""
    config = load_yaml(STOCK_TASKS / benchmark.stock, resolve_func=True)
    for key in ("tag", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split",
                "fewshot_split"):  # fmt: skip
        config.pop(key, None)
    assert benchmark.to_stock is not None, f"{benchmark.name}: a stock task needs to_stock"
    return _task(config, [benchmark.to_stock(item) for item in items])


def own_task(benchmark: Benchmark, items: list[dict]) -> ConfigurableTask:
    """Our definition over the items, all of their fields at its hands."""
    config = benchmark.own() if benchmark.own else choice_config()
    return _task({"task": benchmark.name, "metadata": {"version": 1.0}, **config}, items)


def choice_config() -> dict:
    """Multiple choice by log-likelihood: the query, a space, and each choice."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["query"],
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["label"],
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }


def heldout_task(documents: list[Document]) -> ConfigurableTask:
    """Log-likelihood of whole documents; lm-eval's perplexities and bits per byte over all of them."""
    metrics = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    config = {
        "task": HELDOUT,
        "output_type": "loglikelihood_rolling",
        "doc_to_text": lambda doc: "",
        "doc_to_target": lambda doc: doc["text"],
        "metric_list": [
            {"metric": name, "aggregation": _WEIGHTED[name], "higher_is_better": False} for name in metrics
        ],
        "metadata": {"version": 1.0},
    }
    return _task(config, [{"text": document.text} for document in documents])


_WEIGHTED = {
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
}


def _task(config: dict, rows: list[dict]) -> ConfigurableTask:
    split = {"custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}, "test_split": "test", "num_fewshot": 0}
    return ConfigurableTask(config={**config, **split})
