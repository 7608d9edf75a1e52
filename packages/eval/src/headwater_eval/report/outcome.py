"""The chapter on what alignment gained and what it cost: every model on the same prompts, items and text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..toxicity import judge
from .chart import Series, lines
from .config import ReportConfig
from .document import Block, Details, Figure, Notice, Sample, Samples, Section, Table, Text
from .inputs import Artefact, Json, Lineage, chosen
from .scores import MODELS, keys_of, of_models, table
from .tables import cell, dig, with_intervals
from .units import NONE, count, cut, finite, fixed, percent, signed

FIGURES = {
    "reward": "reward", "reward_gain": "reward over SFT", "win_rate": "wins against SFT", "kl": "KL from SFT, nats",
    "total": "reward less beta KL", "entropy": "entropy, nats", "answer_tokens": "tokens", "finished": "ends by itself",
    "people_win_rate": "wins against SFT, by people", "people_comparisons": "people's comparisons",
}  # fmt: skip
"""What the outcome measures of each model, and what readers call it."""
TESTS = {
    "truthfulqa_mc1": "TruthfulQA, MC1", "truthfulqa_mc2": "TruthfulQA, MC2",
    "bigbench_hhh_alignment_multiple_choice": "HHH",
}  # fmt: skip
"""What readers call tests of what alignment is for."""
FEW_CATEGORIES = 6
"""A test with more of them shows them folded."""


def section(lineage: Lineage, config: ReportConfig) -> Section | None:
    """Gains, truthfulness, the alignment tax, the curve of reward against KL, and answers side by side."""
    artefact = lineage["outcome"]
    scores = [*_truthfulness(lineage), *_tax(lineage)]
    if artefact is None and not scores:
        return None
    found = Section("outcome", "What alignment gained, and what it cost")
    if artefact is not None:
        found.blocks += _gains(artefact) + _toxicity(lineage, artefact) + _curve(artefact)
    found.blocks += scores
    if artefact is not None:
        found.blocks += _samples(artefact, config)
    return found


def unseen(lineage: Lineage) -> Section | None:
    """Zero-shot scores on the task clusters that were kept out of tuning, before and after (FLAN, arXiv:2109.01652)."""
    found = lineage.metrics("unseen")
    scored: dict[str, Json] = found.get("by_cluster") or {}
    if not scored:
        return None
    before = str(found.get("before", ""))
    rows = []
    for cluster, row in scored.items():
        for name in sorted(row.get("models") or {}, key=_place):
            m, change = row["models"][name], (row.get("against_before") or {}).get(name)
            flips = f"{count(change['wrong_to_right'])} / {count(change['right_to_wrong'])}" if change else NONE
            rows.append(
                (
                    cluster.replace("_", " "), told(name), count(m.get("n")), percent(m.get("chance")),
                    f"{percent(m.get('accuracy'))} [{percent(m.get('low'))}, {percent(m.get('high'))}]",
                    _points(change), flips, percent(m.get("same")),
                )
            )  # fmt: skip
    text = (
        "No row of these clusters was in the demonstrations. Each question is asked zero-shot, in the chat format of a "
        "tuned model and as plain text of the base; its options are ranked by log-likelihood. A model that gives one "
        "answer to nearly every question, as the last column tells, knows nothing, whatever it scores."
    )
    heads = ("cluster", "model", "#n", "#chance", "#right", f"#less {told(before)}", "#to right / to wrong",
             "#same answer")  # fmt: skip
    return Section("unseen", "Task clusters kept out of tuning", [Text(text), Table("Zero-shot scores", heads, rows)])


def _points(change: Json | None) -> str:
    if not change:
        return NONE
    low, high = 100 * change["low"], 100 * change["high"]
    return f"{signed(100 * change['difference'], 1)} [{fixed(low, 1)}, {fixed(high, 1)}]"


def told(name: str) -> str:
    """What readers call a model."""
    return MODELS.get(name, name)


def models(lineage: Lineage) -> dict[str, Json]:
    """The outcome's figures by model, in the order in which models are made; best-of-N after SFT."""
    found: dict[str, Json] = dig(lineage.metrics("outcome"), "models") or {}
    return {name: found[name] for name in sorted(found, key=_place)}


def final(lineage: Lineage) -> str | None:
    """The trained policy that the lineage ends in."""
    there = models(lineage)
    return next((name for name in ("ppo-ptx", "ppo", "dpo") if name in there), None)


def _place(name: str) -> tuple[float, int, str]:
    if name.startswith("best-of-"):
        return 1.5, int(name.removeprefix("best-of-")), ""
    known = list(MODELS)
    return (float(known.index(name)) if name in known else len(known), 0, name)


def _gains(artefact: Artefact) -> list[Block]:
    found: dict[str, Json] = artefact.metrics.get("models") or {}
    names = sorted(found, key=_place)
    columns = [key for key in FIGURES if any(key in found[name] for name in names)]
    rows = []
    for name in names:
        row = with_intervals(found[name])
        rows.append((told(name), *(cell(row.get(key)) for key in columns)))
    text = (
        f"Every model answered the same {count(artefact.metrics.get('prompts'))} held-out prompts with the same "
        "seeds; the reward model is the judge, in deviations of its reference answers. Brackets are 95% intervals by "
        "bootstrap over prompts. A win rate of one half is SFT's own. Best-of-N samples N answers from SFT and keeps "
        "the one that the judge likes best; on benchmarks by log-likelihood it is SFT. The judge's own accuracy bounds "
        "what any of this means."
    )
    heads = ["model", *(f"#{FIGURES[key]}" for key in columns)]
    return [Text(text), Table("Gains, by the reward model", heads, rows)]


def _toxicity(lineage: Lineage, artefact: Artefact) -> list[Block]:
    """How toxic the answers are, by the local classifier."""
    given = lineage["toxicity"]
    if given is None:
        return []
    classifier = judge.load(given.folder)
    by_model: dict[str, list[str]] = {}
    for row in artefact.json_lines("samples.jsonl"):
        by_model.setdefault(str(row.get("model")), []).append(str(row.get("answer", "")))
    rows = []
    for name in sorted(by_model, key=_place):
        scores = classifier.scores(by_model[name])
        rows.append(
            (told(name), count(len(scores)), fixed(float(np.mean(scores))), percent(float((scores >= 0.5).mean())))
        )
    known = classifier.measured.get("auc")
    error = f"area under its ROC curve {fixed(known)}" if finite(known) else "its error is not known"
    caption = f"Toxicity of these answers, by the local classifier ({error})"
    return [Table(caption, ("model", "#answers", "#mean", "#0.5 or more"), rows)]


def _curve(artefact: Artefact) -> list[Block]:
    path = artefact.folder / "curve.csv"
    if not path.is_file():
        return []
    by_run: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            if int(row["at"]) or row["run"] == "best-of-N":
                by_run.setdefault(row["run"], []).append((float(row["sqrt_kl"]), float(row["reward"])))
    series = [
        Series(name.replace("ppo-ptx", "PPO-ptx").replace("ppo", "PPO"), sorted(points), marked=name == "best-of-N")
        for name, points in by_run.items()
    ]
    if not series:
        return []
    caption = (
        "Reward against the root of KL, as in Gao et al. 2023: best-of-N on held-out prompts, PPO along its training. "
        "Reward that rises with KL while the scores below fall is over-optimisation of the judge."
    )
    return [Figure(caption, lambda width: lines(width, "reward against KL", series, "root of KL, nats", "reward"))]


def _truthfulness(lineage: Lineage) -> Iterator[Block]:
    """Scores of kind alignment, by category too, and each model less base on them, paired."""
    models = of_models(lineage)
    keys = sorted(keys_of(models, "alignment"))
    if not keys:
        return
    parts = Counter(key.partition(":")[0] for key in keys)
    shown = [key for key in keys if ":" not in key or parts[key.partition(":")[0]] <= 1 + FEW_CATEGORIES]
    yield Text(
        "TruthfulQA (arXiv:2109.07958) asks what people commonly get wrong: MC1 is the share of questions on which the "
        "best true answer is likelier than every false one, MC2 the share of probability on true answers. HHH "
        "(arXiv:2112.00861) is the share of pairs in which the more helpful, honest and harmless answer is likelier. A "
        "likelihood is of the whole answer, so it favours the shorter one, and TruthfulQA's prompt shows \u201cI have "
        "no comment.\u201d, which is true of some questions: a model that copies it scores above a guess. None of "
        "these counts in the mean of the benchmarks."
    )
    yield table("Truthfulness and harmlessness", models, shown, name=_test)
    pairs, after = _against_base(lineage)
    compared = [key for key in shown if any(key in pairs["base", name]["tasks"] for name in after)]
    if compared:
        heads = ["test", *(f"#{told(name)} less base" for name in after)]
        cells = [
            (_test(key), *(_difference(pairs["base", name]["tasks"].get(key)) for name in after)) for key in compared
        ]
        yield Table("The same less base, paired; brackets and * as for the alignment tax", heads, cells)
    rest = [key for key in keys if key not in shown]
    if rest:
        yield Details("Truthfulness by category", [table("Scores by category", models, rest, name=_test)])


def _test(key: str) -> str:
    task, _, category = key.partition(":")
    return TESTS.get(task, task) + (f", {category}" if category else "")


def _against_base(lineage: Lineage) -> tuple[dict[tuple[str, str], Json], list[str]]:
    """The pairs of the paired comparison, and the models that base is compared with."""
    comparison = lineage["paired"]
    found = comparison.json("comparison.json") if comparison else None
    pairs = {(p["before"], p["after"]): p for p in (found or {}).get("pairs", [])}
    return pairs, sorted((name for before, name in pairs if before == "base"), key=_place)


def _tax(lineage: Lineage) -> Iterator[Block]:
    """Each model less base on every task, paired; what PPO-ptx gets back of what PPO loses; held-out text."""
    pairs, after = _against_base(lineage)
    if not after:
        return
    aims = keys_of(of_models(lineage), "alignment")
    tasks = dict.fromkeys(task for name in after for task in pairs["base", name]["tasks"] if task not in aims)
    back = pairs.get(("ppo", "ppo-ptx"))
    rows = [
        (
            task, *(_difference(pairs["base", name]["tasks"].get(task)) for name in after),
            *((_difference(back["tasks"].get(task)),) if back else ()),
        )
        for task in tasks
    ]  # fmt: skip
    averages = [pairs["base", name].get("average") for name in after]
    if any(averages):
        last = (_average(back.get("average")),) if back else ()
        rows.append(("mean of the choice tasks", *map(_average, averages), *last))
    heads = ["task", *(f"#{told(name)} less base" for name in after), *(["#PPO-ptx less PPO"] if back else [])]
    yield Text(
        "The alignment tax: what each step costs on the benchmarks, item by item on the same items (InstructGPT, "
        "arXiv:2203.02155, section 4.2). Brackets are 95% intervals; * marks a difference that stands after Holm's "
        "correction over the tasks. The last column is what mixing in pre-training text gives back."
    )
    yield Table("Alignment tax", heads, rows)
    yield from _tuned_on(lineage, tasks)
    bits = {name: dig(metrics, "heldout") for name, metrics in of_models(lineage).items()}
    shown = [(name, row) for name, row in bits.items() if row and finite(row.get("value"))]
    if len(shown) > 1:
        first = shown[0][1]["value"]
        told_rows = [(name, fixed(row["value"]), signed(row["value"] - first)) for name, row in shown]
        yield Table(
            "Held-out text, bits per byte: less is better", ("model", "#bits per byte", "#over base"), told_rows
        )


def _tuned_on(lineage: Lineage, tasks: Iterable[str]) -> Iterator[Block]:
    """Benchmarks of which the demonstrations hold training rows (headwater-align gives tasks the benchmarks' names)."""
    members = dig(lineage.metrics("instructions"), "mixture", "by_member") or {}
    found = [f"{count(members[task].get('rows'))} rows of {task}" for task in tasks if task in members]
    if found:
        yield Notice(
            f"The demonstrations hold {' and '.join(found)}, of the training split: to every model but base that is no "
            "zero-shot task, and its row tells more than the tax."
        )


def _difference(row: Json | None) -> str:
    if not row:
        return NONE
    clear = "*" if row.get("p_holm", 1.0) < 0.05 else ""
    return _average(row["difference"]) + clear


def _average(row: Mapping[str, Any] | None) -> str:
    if not row:
        return NONE
    return f"{signed(row['value'])} [{fixed(row['low'])}, {fixed(row['high'])}]"


def _samples(artefact: Artefact, config: ReportConfig) -> list[Block]:
    """Answers to the same prompts, with score, KL and total reward as lm-human-preferences prints them."""
    by_prompt: dict[str, dict[str, Json]] = {}
    for row in artefact.json_lines("samples.jsonl"):
        by_prompt.setdefault(str(row.get("prompt")), {}).setdefault(str(row.get("model")), row)
    prompts: Sequence[str] = sorted(by_prompt, key=chosen)[: config.samples]
    if not prompts:
        return []
    most = config.sample_characters
    shown: list[Block] = [Text("Answers to held-out prompts, drawn by a hash of the prompt: reward, KL, total.")]
    rest: list[Block] = []
    for number, prompt in enumerate(prompts):
        answers = [
            Sample(
                told(name), cut(str(row.get("answer", "")), most) or "(nothing)",
                f"reward {fixed(row.get('reward'), 2)}, KL {fixed(row.get('kl'), 1)}, "
                f"total {fixed(row.get('total'), 2)}",
            )
            for name, row in sorted(by_prompt[prompt].items(), key=lambda item: _place(item[0]))
        ]  # fmt: skip
        (shown if number < 2 else rest).append(Samples("Prompt", cut(prompt, most), answers))
    return [*shown, *([Details("More prompts", rest)] if rest else [])]
