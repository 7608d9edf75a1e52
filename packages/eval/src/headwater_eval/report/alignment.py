"""Chapters on alignment: demonstrations, preferences, and how each stage trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from markupsafe import Markup

from .chart import Series, lines, side_by_side
from .config import ReportConfig
from .document import Block, Details, Figure, Notice, Sample, Samples, Section, Text
from .inputs import Json, Lineage
from .scores import MODELS
from .tables import metrics_tables, spelled
from .training import smoothed
from .units import cut, finite

# What a log counts its rows by, and what is no result.
_NOT_DRAWN = {"step", "tokens", "epoch", "episodes", "lr", "policy_lr", "value_lr"}

# What is drawn first, where a stage logs it.
_MAIN = ("loss", "accuracy", "reward", "kl", "entropy", "answer_tokens")


def tuning_data(lineage: Lineage) -> Section | None:
    """What SFT, the reward model and PPO learn from."""
    section = Section("tuning-data", "Instructions and preferences")
    for name, told in (("instructions", "Demonstrations"), ("preferences", "Comparisons")):
        if lineage[name] is not None:
            section.blocks += metrics_tables(told, lineage.metrics(name))
    return section if section.blocks else None


def tuning(lineage: Lineage, name: str, anchor: str, title: str, told: str) -> Section | None:
    """One training stage: everything that it logged as small plots, and its figures."""
    artefact = lineage[name]
    if artefact is None:
        return None
    section = Section(anchor, title, [Text(told)])
    log = artefact.json_lines("log.jsonl")
    names = logged(log)
    main = curves(log, [name for name in _MAIN if name in names])
    others = curves(log, [name for name in names if name not in _MAIN])
    if main:
        caption = "Logged at each step: the moving average over single values; held-out values as dots."
        section.blocks.append(Figure(caption, lambda width: side_by_side(width, main)))
    else:
        section.blocks.append(Notice(f"The {name} artefact has no training log (log.jsonl)."))
    if others:
        picture = Figure("Logged at each step.", lambda width: side_by_side(width, others))
        section.blocks.append(Details("More of what was logged", [picture]))
    section.blocks += metrics_tables("Figures", artefact.metrics)
    return section


def logged(log: Sequence[Json]) -> list[str]:
    """The quantities that a log tells of more than once, `heldout_X` under `X`."""
    seen = Counter(key.removeprefix("heldout_") for row in log for key, value in row.items() if finite(value))
    return [name for name, times in seen.items() if times > 1 and name not in _NOT_DRAWN]


def curves(log: Sequence[Json], names: Sequence[str]) -> list[Callable[[int], Markup]]:
    """A plot for each quantity over the steps; its held-out values are dots in the same plot."""
    pictures = []
    for name in names:
        points, held = _points(log, name), _points(log, f"heldout_{name}")
        series = smoothed(spelled(name), points) if points else []
        if held:
            series.append(Series("held out", held, marked=True))
        pictures.append(_plot(spelled(name), series))
    return pictures


def _plot(name: str, series: Sequence[Series]) -> Callable[[int], Markup]:
    return lambda width: lines(width, name, series, "step", name, height=190)


def _points(log: Sequence[Json], key: str) -> list[tuple[float, float]]:
    return [(float(row.get("step", i)), float(row[key])) for i, row in enumerate(log) if finite(row.get(key))]


def completions(lineage: Lineage, config: ReportConfig) -> Section | None:
    """What each model writes for the same prompts."""
    written = {
        told: {str(g.get("id")): g for g in artefact.json_lines("generations.jsonl")}
        for name, told in MODELS.items()
        if (artefact := lineage[f"results-{name}"]) is not None
    }
    prompts = list(dict.fromkeys(key for by_id in written.values() for key in by_id))
    if not prompts or not config.samples:
        return None
    blocks: list[Block] = []
    for form, told in (("plain", "Beginnings of held-out documents"), ("chat", "Questions in the chat format")):
        of_form = [p for p in prompts if _first(written, p).get("format", "plain") == form][: config.samples]
        if of_form:
            blocks.append(Text(f"{told}, completed greedily."))
        blocks += [_beside(written, prompt, config.sample_characters) for prompt in of_form]
    return Section("samples", "What the models write", blocks) if blocks else None


def _first(written: dict[str, dict[str, Json]], prompt: str) -> Json:
    return next(by_id[prompt] for by_id in written.values() if prompt in by_id)


def _beside(written: dict[str, dict[str, Json]], prompt: str, characters: int) -> Samples:
    some = _first(written, prompt)
    samples = [
        Sample(name, _shown(by_id[prompt].get("completion"), characters), _ending(by_id[prompt]))
        for name, by_id in written.items()
        if prompt in by_id
    ]
    if some.get("reference"):
        samples.append(Sample("the document", cut(str(some["reference"]), characters)))
    source = str(some.get("source", ""))
    return Samples(
        f"Prompt from {source}" if source else "Prompt", cut(str(some.get("prompt", "")), characters), samples
    )


def _ending(generation: Json) -> str:
    finished = generation.get("finished")
    return "" if finished is None else "ended by itself" if finished else "cut off"


def _shown(text: object, characters: int) -> str:
    return cut(text, characters) if isinstance(text, str) and text.strip() else "(nothing)"
