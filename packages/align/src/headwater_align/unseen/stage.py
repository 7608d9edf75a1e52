"""Stage `unseen`: models asked zero-shot about task clusters that were kept out of tuning (FLAN, arXiv:2109.01652)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .. import jsonl
from .._contracts.errors import UserError
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..chat_format import ChatFormat
from ..engine import pretrained, runtime
from ..mixtures.examples import first_groups
from .config import UnseenConfig
from .questions import Encoded, Format, encode, format_of
from .ranking import answers, matches, option_scores
from .statistics import accuracy, paired
from .table import table


def run(run: Run) -> None:
    """Write metrics.json, unseen.md and answers.jsonl."""
    config: UnseenConfig = run.config
    models = {name: folder for name, folder in run.inputs.items() if name != "instructions"}
    if not models:
        raise UserError("no model to score; give each as --in NAME=DIR")
    if config.before not in models:
        raise UserError(f"no model is named {config.before}; there are {', '.join(models)}: set `before`")
    if unknown := sorted(set(config.formats) - set(models)):
        raise UserError(f"formats: no model is named {unknown[0]}; there are {', '.join(models)}")
    runtime.initialize(seed=config.seed)
    records = questions(run.inputs["instructions"], config.limit)
    kept = [i for i, fits in enumerate(_fits(models, records, config)) if fits]
    too_long = len(records) - len(kept)
    records = [records[i] for i in kept]
    if not records:
        raise UserError("no question fits into the context of every model; write shorter ones")
    run.log(f"{len(records)} questions, {too_long} too long for one of the models")
    told: dict[str, list[dict]] = {}
    forms: dict[str, Format] = {}
    for name, folder in models.items():
        forms[name], told[name] = score(folder, records, config, config.formats.get(name))
        run.log(f"{name} ({forms[name]}): {sum(one['right'] for one in told[name])} of {len(records)} right")
    metrics = {
        "questions": len(records),
        "too_long": too_long,
        "before": config.before,
        "format": forms,
        **summary(records, told, config),
    }
    run.write_metrics(metrics)
    write_atomic(run.out / "unseen.md", table(metrics))
    jsonl.write(
        run.out / "answers.jsonl",
        [
            {"id": record["id"], "task": record["task"], "cluster": record["cluster"], "model": name, **one}
            for i, record in enumerate(records)
            for name, one in ((name, told[name][i]) for name in models)
        ],
    )


def questions(artefact: Path, limit: int = 0) -> list[dict]:
    """The records of unseen.jsonl, of each task the first groups with `limit` questions.

    Raises:
        UserError: no cluster was held out.
    """
    path = artefact / "unseen.jsonl"
    if not path.is_file():
        raise UserError(f"{artefact} has no unseen.jsonl; name `heldout_clusters` of the stage instructions")
    found: dict[str, list[dict]] = {}
    for record in jsonl.read(path):
        found.setdefault(record["task"], []).append(record)
    return [
        record
        for task in sorted(found)
        for record in first_groups(found[task], lambda record: record["group"], limit or len(found[task]))
    ]


def score(
    folder: Path, records: Sequence[dict], config: UnseenConfig, form: Format | None = None
) -> tuple[Format, list[dict]]:
    """How the model was asked, and for each question {"said", "right", "scores"}; scores (nats) only with options."""
    loaded = pretrained.load(folder, dtype=pretrained.TYPES[config.dtype])
    loaded.model.eval()
    chat = ChatFormat(loaded.tokenizer)
    form = form or format_of(loaded, chat)
    encoded = encode(records, chat, form)
    told: list[dict] = [{} for _ in records]
    ranked = [i for i, record in enumerate(records) if record["options"]]
    scores = option_scores(loaded.model, [encoded[i] for i in ranked], config.batch_tokens)
    for i, of in zip(ranked, scores, strict=True):
        said = records[i]["options"][of.index(max(of))]
        told[i] = {"said": said, "right": said == records[i]["answer"], "scores": of}
    free = [i for i, record in enumerate(records) if not record["options"]]
    with torch.no_grad():
        written = answers(
            loaded.model, [encoded[i] for i in free], chat, form, config.max_new_tokens, config.batch_size
        )
    for i, said in zip(free, written, strict=True):
        told[i] = {"said": said, "right": matches(said, records[i]["answer"]), "scores": None}
    return form, told


def _fits(models: dict[str, Path], records: Sequence[dict], config: UnseenConfig) -> list[bool]:
    """Whether a question with its answer fits into the context of every model."""
    fits = [True] * len(records)
    for name, folder in models.items():
        loaded = pretrained.load(folder)
        chat = ChatFormat(loaded.tokenizer)
        encoded = encode(records, chat, config.formats.get(name) or format_of(loaded, chat))
        room = [_needed(one, config) <= loaded.config.context for one in encoded]
        fits = [a and b for a, b in zip(fits, room, strict=True)]
    return fits


def _needed(one: Encoded, config: UnseenConfig) -> int:
    return one.length if one.options else one.length + config.max_new_tokens


def summary(records: Sequence[dict], told: dict[str, list[dict]], config: UnseenConfig) -> dict:
    """{"by_cluster", "by_task"}: for each name the accuracy of every model, and each one's difference from `before`."""
    made: dict[str, dict] = {}
    for by in ("cluster", "task"):
        made[f"by_{by}"] = {}
        for name in sorted({record[by] for record in records}):
            here = [i for i, record in enumerate(records) if record[by] == name]
            of = [records[i] for i in here]
            said = {model: [values[i]["said"] for i in here] for model, values in told.items()}
            hits = {model: [values[i]["right"] for i in here] for model, values in told.items()}
            groups = [record["group"] for record in of]
            made[f"by_{by}"][name] = {
                "models": {model: accuracy(of, said[model], values) for model, values in hits.items()},
                "against_before": {
                    model: paired(groups, hits[config.before], values, config.resamples, config.seed)
                    for model, values in hits.items()
                    if model != config.before
                },
            }
    return made
