"""Items and documents -> lm-eval tasks: the stock prompt and metric on local rows, or our own definition."""

from __future__ import annotations

from typing import Any

from ._contracts.errors import UserError
from .benchmark import Benchmark, Item
from .documents import Document, seeded_rank
from .engine import STOCK_TASKS, ConfigurableTask, Instance, load_yaml
from .shots import give_shots, table

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


def benchmark_task(
    benchmark: Benchmark,
    items: list[Item],
    shots: int = 0,
    pool: list[Item] | None = None,
    sampler: str = "fixed",
    seed: int = 1234,
) -> ConfigurableTask:
    """The lm-eval task of a benchmark over these items; document i of it is items[i].

    Args:
        shots: solved examples before each question.
        pool: items that the examples are drawn from; None: the items themselves. The tested item is never among its
            own shots, wherever it stands.
        sampler: one of `shots.SAMPLERS`.
        seed: of the draw.

    Raises:
        UserError: more shots than other items, or items that are not what lm-eval's own definition expects.
    """
    config = stock_config(benchmark) if benchmark.stock else own_config(benchmark)
    row = stock_row if benchmark.stock else own_row
    task = _task(config, [row(benchmark, item) for item in items])
    if len(task.eval_docs) != len(items):
        raise UserError(
            f"{benchmark.name}: lm-eval's definition leaves out {len(items) - len(task.eval_docs)} of {len(items)} "
            "items; make the items again"
        )
    if shots:
        drawn_from = items if pool is None else pool
        give_shots(task, shots, [row(benchmark, item) for item in drawn_from], sampler, seed, benchmark.shots_within)
    return task


def shots_of(benchmark: Benchmark, asked: int | str) -> int:
    """Shots for a run that asks for so many, or the `usual` number; bias pairs and code tasks are asked as they are."""
    if benchmark.kind not in ("choice", "alignment", "text"):
        return 0
    return benchmark.shots if asked == "usual" else int(asked)


def stock_config(benchmark: Benchmark) -> dict[str, Any]:
    """lm-eval's own definition, prompt and metrics untouched, without the place that it takes rows from."""
    config = load_yaml(STOCK_TASKS / benchmark.stock, resolve_func=True)
    for key in ("tag", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split",
                "fewshot_split"):  # fmt: skip
        config.pop(key, None)
    return {**config, **(benchmark.repair or {})}


def stock_row(benchmark: Benchmark, item: Item) -> dict[str, Any]:
    """The row of the hub's data set that an item stands for: its own, or the one that its fields make."""
    if "row" in item:
        return item["row"]
    assert benchmark.to_stock is not None, f"{benchmark.name}: a stock task needs to_stock"
    return benchmark.to_stock(item)


def own_config(benchmark: Benchmark) -> dict[str, Any]:
    """Our definition over the items, all of their fields at its hands."""
    config = benchmark.own() if benchmark.own else choice_config()
    return {"task": benchmark.name, "metadata": {"version": 1.0}, **config}


def own_row(benchmark: Benchmark, item: Item) -> dict[str, Any]:
    """The item itself."""
    return item


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


def stock_rows_task(benchmark: Benchmark, rows: list[dict[str, Any]]) -> ConfigurableTask:
    """lm-eval's definition over rows of the hub's data set."""
    return _task(stock_config(benchmark), rows)


class AlsoAsk(ConfigurableTask):
    """A task whose model writes an answer and also weighs one given text: SQuAD 2's "unanswerable"."""

    also_ask: str

    def construct_requests(self, doc: dict, ctx: Any, **kwargs: Any) -> list[Instance]:
        """The question, then the log-likelihood of `also_ask` after it."""
        written = super().construct_requests(doc, ctx, **kwargs)
        plain = {key: value for key, value in kwargs.items() if key not in ("apply_chat_template", "chat_template")}
        return [written, Instance("loglikelihood", doc, (ctx, self.also_ask), 1, **plain)]


def _task(config: dict[str, Any], rows: list[dict[str, Any]]) -> ConfigurableTask:
    split = {"custom_dataset": lambda **_: {"test": table(rows)}, "test_split": "test", "num_fewshot": 0}
    also_ask = config.get("also_ask")
    config = {**{key: value for key, value in config.items() if key != "also_ask"}, **split}
    if also_ask is None:
        return ConfigurableTask(config=config)
    task = AlsoAsk(config=config)
    task.also_ask = also_ask
    return task
