"""The stage: artefacts in, index.html and report.md out."""

from __future__ import annotations

from pathlib import Path

from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from . import alignment, data, outcome, overview, pages, provenance, scores, training
from .config import ReportConfig
from .document import Section
from .inputs import Lineage, load
from .render import html, markdown


def report(run: Run) -> None:
    """Write the page and its Markdown twin into `run.out`."""
    config: ReportConfig = run.config
    lineage = load(run.inputs, run.manifests, run.stage.reads, Path(config.records))
    sections = chapters(lineage, config)
    told = subtitle(lineage)
    write_atomic(run.out / "index.html", html(config.title, told, sections))
    write_atomic(run.out / "report.md", markdown(config.title, told, sections))
    pages.copy(lineage, run.out)
    missing = overview.shortfalls(lineage)
    run.write_metrics({"artefacts": len(lineage.artefacts), "chapters": len(sections), "shortfalls": len(missing)})
    for sentence in missing:
        run.log(sentence)
    run.log(f"{len(sections)} chapters on {len(lineage.artefacts)} artefacts")


def chapters(lineage: Lineage, config: ReportConfig) -> list[Section]:
    """Every chapter that has something to say, in reading order."""
    found = [
        overview.summary(lineage),
        data.sources(lineage),
        data.items(lineage),
        data.funnel(lineage),
        data.removed(lineage, config),
        training.tokenizer(lineage),
        training.tokenizers(lineage),
        training.plan(lineage),
        training.pretraining(lineage),
        scores.heldout_text(lineage),
        scores.benchmarks(lineage),
        scores.written(lineage),
        scores.probes(lineage),
        pages.paired(lineage),
        scores.contamination(lineage),
        scores.bias(lineage),
        pages.leakage(lineage),
        alignment.tuning_data(lineage),
        alignment.tuning(lineage, "sft", "sft", "Supervised fine-tuning", "The base model, trained on demonstrations."),
        alignment.tuning(
            lineage, "reward", "reward", "Reward model", "The SFT model with a scalar head, trained on comparisons."
        ),
        alignment.tuning(
            lineage, "dpo", "dpo", "DPO", "The SFT model, trained on the same comparisons without a reward model."
        ),
        alignment.tuning(lineage, "ppo", "ppo", "PPO", "The SFT model, trained to please the reward model."),
        alignment.tuning(
            lineage, "ppo-ptx", "ppo-ptx", "PPO-ptx", "The same with pre-training text mixed into every update."
        ),
        outcome.section(lineage, config),
        outcome.unseen(lineage),
        alignment.completions(lineage, config),
        provenance.lineage_graph(lineage),
        provenance.costs(lineage),
        provenance.licences(lineage),
        provenance.parameters(lineage),
    ]
    return [section for section in found if section is not None]


def subtitle(lineage: Lineage) -> str:
    """The packages and versions that made the artefacts, in the data's order."""
    made = dict.fromkeys(f"{a.manifest.package} {a.manifest.version}" for a in lineage.artefacts.values())
    return ", ".join(made) or "no artefact at hand"
