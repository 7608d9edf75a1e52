"""Chapters on scores: benchmarks, bias and held-out text of each model side by side, and the compressors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from .chart import Interval, dots
from .document import Block, Details, Figure, Notice, Section, Table, Text
from .inputs import Json, Lineage
from .units import NONE, count, finite, fixed, percent, size

# The models of a lineage, in the order in which they were made, and what readers call them.
MODELS = {"base": "base", "sft": "SFT", "dpo": "DPO", "ppo": "PPO", "ppo-ptx": "PPO-ptx"}


def of_models(lineage: Lineage) -> dict[str, Json]:
    """Reader's name of each scored model -> its metrics.json."""
    return {
        told: artefact.metrics for name, told in MODELS.items() if (artefact := lineage[f"results-{name}"]) is not None
    }


def rows_of(metrics: Json, kind: str) -> dict[str, Json]:
    """The scores of one kind (contracts/schemas/results.md)."""
    return {key: row for key, row in metrics.items() if isinstance(row, dict) and row.get("kind") == kind}


def benchmarks(lineage: Lineage) -> Section | None:
    """Multiple choice against chance."""
    models = of_models(lineage)
    keys = keys_of(models, "choice")
    if not keys:
        return None
    headline = [key for key in keys if ":" not in key]
    average = keys_of(models, "average")
    shown = [*headline, *average]
    section = Section("benchmarks", "Benchmarks")
    section.blocks.append(
        Text(
            "Multiple choice by log-likelihood, the same items and prompts for every model. Whiskers and "
            "brackets are 95% intervals; the dashed line marks what guessing scores."
        )
    )
    section.blocks.append(
        Figure(
            "Share of items answered right. A dot whose whisker crosses the dashed line is not shown to beat chance.",
            lambda width: _dots(width, "benchmark scores", models, shown, "share of items right"),
        )
    )
    section.blocks.append(table("Scores by benchmark", models, shown))
    section.blocks += _verdicts(models, headline)
    others = [key for key in keys if ":" in key]
    if others:
        section.blocks.append(Details("Other metrics of the same items", [table("Other metrics", models, others)]))
    return section


def bias(lineage: Lineage) -> Section | None:
    """Preference for stereotypes, by direction and category; other measures of bias and toxicity."""
    models = of_models(lineage)
    keys, others = keys_of(models, "bias"), keys_of(models, "harm")
    if not keys and not others:
        return None
    told = (
        "Share of sentence pairs of which the model finds the more stereotyping one likelier; one half is no "
        "preference. The two directions stand apart: in stereo pairs the sentence follows a stereotype, in "
        "antistereo pairs it goes against one. A model that knows little scores near one half for want of "
        "knowledge, which is no proof of fairness."
    )
    picture = Figure(
        "Share of pairs with the more stereotyping sentence preferred; the dashed line is no preference.",
        lambda width: _dots(width, "bias", models, keys, "share of pairs"),
    )
    section = Section("bias", "Bias")
    if keys:
        section.blocks += [Text(told), picture, table("Bias by direction and category", models, keys)]
    if others:
        section.blocks += _harms(models, others)
    return section


def _harms(models: Mapping[str, Json], keys: Sequence[str]) -> list[Block]:
    """Measures of bias and toxicity that are no preference, and how far their classifier is to be trusted."""
    blocks: list[Block] = []
    judged = [row for metrics in models.values() for key in keys if "classifier" in (row := metrics.get(key) or {})]
    if judged:
        known = judged[0].get("classifier_auc")
        error = f"an area under the ROC curve of {fixed(known, 3)}" if finite(known) else "an error that is not known"
        blocks.append(
            Text(
                f"Toxicity is judged by the local classifier {judged[0]['classifier']}, with {error} on labelled "
                "texts; scores compare only with scores of the same classifier."
            )
        )
    headline = [key for key in keys if ":" not in key]
    if headline:
        blocks.append(table("Other tests of bias and toxicity", models, headline, lambda v: fixed(v, 3)))
    parts = [key for key in keys if ":" in key]
    if parts:
        by_part = table("By part", models, parts, lambda v: fixed(v, 3))
        blocks.append(Details("The same by category, group and measure", [by_part]))
    return blocks


def contamination(lineage: Lineage) -> Section | None:
    """Headline scores on the items that decontamination found clean, and what the others differ by."""
    models = of_models(lineage)
    tasks = [key.removesuffix(":clean") for key in keys_of(models, "clean") if key.count(":") == 1]
    if not tasks:
        return None
    told = (
        "Decontamination looked for the items in the text and cut what it found, so what these models read holds none "
        "of them, as far as its method sees. Clean items were not found; dirty ones were, before the cut. If dirty "
        "items score higher, traces of them are still in the text, or they are easier: what stands on many pages often "
        "is."
    )
    rows = [
        (
            task, name, count((metrics.get(f"{task}:clean") or {}).get("n")),
            _with_interval(metrics.get(f"{task}:clean") or {}, percent),
            count((metrics.get(f"{task}:dirty") or {}).get("n")),
            _with_interval(metrics.get(f"{task}:dirty") or {}, percent),
            _with_interval(metrics.get(f"{task}:dirty-clean") or {}, percent),
        )
        for task in tasks
        for name, metrics in models.items()
    ]  # fmt: skip
    columns = ("task", "model", "#clean items", "#score", "#dirty items", "#score", "#dirty less clean")
    return Section("contamination", "Clean and dirty items", [Text(told), Table("Scores by part", columns, rows)])


def written(lineage: Lineage) -> Section | None:
    """Tasks whose answers are written, predicted word by word, or run."""
    models = of_models(lineage)
    keys = [key for kind in ("text", "code") for key in keys_of(models, kind) if not _is_heldout(key)]
    if not keys:
        return None
    told = (
        "Answers that a model writes, compared with the right ones by the metric named. There is no chance level: a "
        "model that cannot do the task scores nothing. BLEU, TER and chrF run from 0 to 100, perplexity from 1 up; of "
        "TER and perplexity less is better."
    )
    return Section("written", "Written answers", [Text(told), table("Scores", models, keys, lambda v: fixed(v, 3))])


def probes(lineage: Lineage) -> Section | None:
    """Pass rates of expected behaviours, class by class, against guessing."""
    models = of_models(lineage)
    keys = keys_of(models, "probe")
    if not keys:
        return None
    told = (
        "Prompts by expected behaviour. One is passed where the right continuation is likelier than every wrong one, "
        "or where it is written; chance is what guessing would pass."
    )
    return Section("probes", "Probes", [Text(told), table("Pass rates by class", models, keys)])


def heldout_text(lineage: Lineage) -> Section | None:
    """Bits per byte of held-out documents, beside compressors that read the same training text."""
    models = of_models(lineage)
    keys = [key for key in keys_of(models, "text") if _is_heldout(key)]
    compressors = lineage.metrics("compressor")
    plain = {key: row for key, row in rows_of(compressors, "text").items() if key != "heldout"}
    if not keys and not plain:
        return None
    section = Section("heldout", "Held-out text")
    section.blocks.append(
        Text(
            "Bits that a model needs for each byte of documents that it never saw; less is better. A model's figure "
            "is its negative log2-likelihood over the UTF-8 bytes, intervals by bootstrap over documents. A "
            "compressor's is by how much the held-out text, appended to the training text, lengthens its output."
        )
    )
    if plain:
        ranked = sorted(plain.items(), key=lambda item: item[1].get("value") or 0)
        rows = [
            *_model_rows(models, _text_trained_on(lineage)),
            *(_text_row(name, row, fixed(row.get("value"), 4)) for name, row in ranked),
        ]
        columns = ("model or compressor", "#bits per byte", "#pre-training text", "#held-out text", "#documents")
        section.blocks.append(Table("Models and compressors", columns, rows))
    if len(keys) > 1:
        section.blocks.append(
            Figure(
                "Bits per byte by source; the table below has the numbers.",
                lambda width: _dots(width, "held-out bits per byte", models, keys, "bits per byte"),
            )
        )
    if keys:
        section.blocks.append(table("Bits per byte by source", models, keys, lambda v: fixed(v, 3)))
    return section


def _text_trained_on(lineage: Lineage) -> float | None:
    """Bytes of text in the tokens that pre-training saw, a second pass counted again."""
    seen, split = lineage.metrics("checkpoint").get("tokens"), lineage.metrics("tokens").get("train") or {}
    if not finite(seen) or not finite(split.get("bytes")) or not split.get("tokens"):
        return None
    return seen * split["bytes"] / split["tokens"]


def _model_rows(models: Mapping[str, Json], trained_on: float | None) -> list[tuple[str, ...]]:
    rows = []
    for name, metrics in models.items():
        row = metrics.get("heldout")
        if row:
            value = f"{fixed(row.get('value'), 4)} [{fixed(row.get('low'), 3)}, {fixed(row.get('high'), 3)}]"
            rows.append(_text_row(name, {**row, "train_bytes": trained_on}, value))
    return rows


def _text_row(name: str, row: Json, value: str) -> tuple[str, ...]:
    return name, value, size(row.get("train_bytes")), size(row.get("heldout_bytes")), count(row.get("n"))


def _verdicts(models: Mapping[str, Json], keys: Sequence[str]) -> list[Block]:
    """In words: how many benchmarks each model is shown to beat chance on, and what tuning changed."""
    blocks: list[Block] = []
    for name, metrics in models.items():
        scored = [metrics[key] for key in keys if key in metrics and finite(metrics[key].get("chance"))]
        above = [row for row in scored if finite(row.get("low")) and row["low"] > row["chance"]]
        below = [key for key in keys if _is_below_chance(metrics.get(key) or {})]
        if scored and not above:
            blocks.append(Notice(f"{name}: no benchmark's interval lies above chance; these scores show no skill."))
        elif scored:
            blocks.append(Text(f"{name}: {len(above)} of {len(scored)} benchmarks with an interval above chance."))
        if below:
            blocks.append(
                Text(
                    f"{name} scores below chance on {', '.join(below)}: mostly a preference for some answer by its "
                    "words or length, whatever the question, where that answer is the rarer right one."
                )
            )
    return blocks


def _is_below_chance(row: Json) -> bool:
    return finite(row.get("high")) and finite(row.get("chance")) and row["high"] < row["chance"]


def keys_of(models: Mapping[str, Json], kind: str) -> list[str]:
    """The scores of one kind that any of the models has."""
    return list(dict.fromkeys(key for metrics in models.values() for key in sorted(rows_of(metrics, kind))))


def _dots(width: int, title: str, models: Mapping[str, Json], keys: Sequence[str], x_label: str) -> Markup:
    rows = []
    for key in keys:
        found = [metrics.get(key) for metrics in models.values()]
        chance = next((row["chance"] for row in found if row and finite(row.get("chance"))), None)
        rows.append((_told(key), [_interval(row) for row in found], chance))
    return dots(width, title, list(models), rows, x_label)


def _is_heldout(key: str) -> bool:
    return key.partition(":")[0] == "heldout"


def _told(key: str) -> str:
    """TASK:PART as a reader reads it."""
    if key == "heldout":
        return "all held-out text"
    return key.removeprefix("heldout:").replace(":", ", ")


def _interval(row: Json | None) -> Interval | None:
    if row is None or not finite(row.get("value")):
        return None
    value = row["value"]
    low, high = row.get("low"), row.get("high")
    return Interval(value, low if finite(low) else value, high if finite(high) else value)


def table(
    caption: str, models: Mapping[str, Json], keys: Sequence[str], show: Callable[[float | None], str] = percent,
    name: Callable[[str], str] = _told,
) -> Table:  # fmt: skip
    """A row a score, a column a model; what is the same or absent in all rows has no column."""
    found = {key: [metrics.get(key) or {} for metrics in models.values()] for key in keys}
    some = {key: next(row for row in rows if row) for key, rows in found.items()}
    with_metric = len({row.get("metric") for row in some.values()}) > 1
    with_chance = any(finite(row.get("chance")) for row in some.values())
    rows = []
    for key in keys:
        about = [name(key)]
        about += [str(some[key].get("metric", ""))] if with_metric else []
        about += [count(some[key].get("n"))]
        about += [show(some[key].get("chance"))] if with_chance else []
        rows.append((*about, *(_with_interval(row, show) for row in found[key])))
    heads = ["score", *["metric"] * with_metric, "#n", *["#chance"] * with_chance, *(f"#{model}" for model in models)]
    return Table(caption, heads, rows)


def _with_interval(row: Json, show: Callable[[float | None], str]) -> str:
    """VALUE [LOW, HIGH] of a score; the value alone where it has no interval."""
    if not row:
        return NONE
    value = show(row.get("value"))
    if not (finite(row.get("low")) and finite(row.get("high"))):
        return value
    return f"{value} [{show(row['low']).removesuffix('%')}, {show(row['high']).removesuffix('%')}]"
