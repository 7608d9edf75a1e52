"""The stage: artefacts in, README.md out."""

from __future__ import annotations

from pathlib import Path

import jinja2

from .._contracts.manifest import manifest_hash, write_atomic
from .._contracts.stage import Run, Stage
from ..report.inputs import Artefact, Json, Lineage, load
from ..report.render import escaped
from ..report.render import markdown as rendered
from ..report.units import finite
from . import front_matter
from .config import ModelCardConfig
from .energy import Energy, estimate
from .sections import Card, languages, sources

STAGE = Stage(
    name="card",
    summary="Fill a Hugging Face model card from artefacts alone; what is missing is said to be missing.",
    reads={
        "model?": ("export",),
        "sources?": ("sources",),
        "extracted?": ("documents",),
        "edited?": ("documents",),
        "filtered?": ("documents",),
        "deduped?": ("documents",),
        "clean?": ("documents",),
        "corpus?": ("corpus",),
        "card?": ("card",),
        "tokenizer?": ("tokenizer",),
        "tokens?": ("tokens",),
        "plan?": ("plan",),
        "checkpoint?": ("checkpoint",),
        "base?": ("export",),
        "instructions?": ("instructions",),
        "preferences?": ("preferences",),
        "sft?": ("export",),
        "reward?": ("export",),
        "ppo?": ("export",),
        "review?": ("review",),
        "*": ("results",),
    },
    writes="modelcard",
    cost="seconds; it reads every input's bytes once to verify them",
    config=ModelCardConfig,
    run="headwater_eval.model_card.stage:write_card",
    section="model_card",  # `card` is the data card's
    reuse=False,  # run records are in no fingerprint
)


def write_card(run: Run) -> None:
    """Write README.md and metrics.json into `run.out`."""
    config: ModelCardConfig = run.config
    declared = [name for name in run.stage.reads if name != "*"]
    lineage = load(run.inputs, run.manifests, declared, Path(config.records))
    known = {name.removesuffix("?") for name in declared}
    results = {
        name: Artefact(name, folder, run.manifests[name], manifest_hash(folder))
        for name, folder in sorted(run.inputs.items())
        if name not in known
    }
    checkpoint = lineage["checkpoint"]
    energy = estimate(lineage.records, checkpoint.json("final/environment.json") if checkpoint else None, config.energy)
    card = Card(lineage, results, energy, config)
    chapters = card.chapters()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )  # Markdown: `escaped` and fences do what autoescape does for HTML
    bodies = [{"title": escaped(c.title), "body": _body(c)} for c in chapters]
    head = front_matter.text(metadata(lineage, results, energy, config))
    page = environment.get_template("README.md.j2").render(
        front_matter=head, name=escaped(config.name), sections=bodies
    )
    write_atomic(run.out / "README.md", page.rstrip() + "\n")
    run.write_metrics(
        {"chapters": len(chapters), "artefacts": len(lineage.artefacts) + len(results), "missing": len(card.missing),
         "scores": len(scores_of_model(lineage, results))}
    )  # fmt: skip
    for sentence in card.missing:
        run.log(f"missing: {sentence}")
    run.log(f"{len(chapters)} chapters on {len(lineage.artefacts) + len(results)} artefacts")


def metadata(lineage: Lineage, results: dict[str, Artefact], energy: Energy | str, config: ModelCardConfig) -> Json:
    """The front matter; a key whose content is not known is left out."""
    scores = scores_of_model(lineage, results)
    asked = next((a.manifest.inputs.get("items", "") for a in results.values() if a.manifest.inputs), "")
    data: Json = {
        "language": languages(lineage["corpus"]),
        **front_matter.licence(config.licence, config.licence_link),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["headwater"],
        "datasets": sources(lineage["corpus"]),
        "metrics": front_matter.metric_names(scores.values()),
    }
    if isinstance(energy, Energy) and energy.grams is not None:
        data["co2_eq_emissions"] = {
            "emissions": round(energy.grams, 3),  # grams
            "source": f"estimate: measured time x {energy.power} x PUE {config.energy.pue:g}",
            "training_type": "pre-training" + (" and fine-tuning" if lineage["sft"] or lineage["ppo"] else ""),
            **({"geographical_location": config.energy.location} if config.energy.location else {}),
            "hardware_used": energy.power,
        }
    data["model-index"] = front_matter.model_index(config.name, scores, asked[:12])
    return data


def scores_of_model(lineage: Lineage, results: dict[str, Artefact]) -> dict[str, Json]:
    """Scores of the model that the card is on: of results whose manifest names it, else of the only results given.

    Results of other models stand in the tables only, since `model-index` speaks of one model.
    """
    model = lineage["model"]
    own = [a for a in results.values() if model is not None and model.hash in a.manifest.inputs.values()]
    if not own and model is None and len(results) == 1:
        own = list(results.values())
    return {
        key: row
        for artefact in own
        for key, row in sorted(artefact.metrics.items())
        if isinstance(row, dict) and finite(row.get("value"))
    }


def _body(section) -> str:  # noqa: ANN001
    """The blocks of a chapter as Markdown, without the report's own headings."""
    text = rendered("", "", [section])
    return text.split("\n\n", 3)[3].strip() if text.count("\n\n") >= 3 else ""
