"""card: what the corpus is and how it came to be, for people and for machines.

    metrics of every step, the corpus -> card.json, card.html, tables for DVC's plots
    rejects of every step, the corpus -> stratified samples -> browse.html

The sections follow Gebru et al. 2018 (Datasheets for Datasets, arXiv 1803.09010) as far as a pipeline can know them.
browse.html is one file without a server: a subject-matter expert flags samples in it and saves flags.csv, which filter
honours at the next run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import jinja2
import polars as pl
import pyarrow.parquet as pq
from markupsafe import Markup

from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..config.card import CardConfig
from ..documents import read_json
from ..harm.identity import analyse
from . import facts
from .samples import Sample, draw

FLAG_NAMES = {
    "keep": "should have been kept", "drop": "should not be in the corpus",
    "wrong_extraction": "the text was extracted wrongly", "missing_domain": "a domain is missing",
}  # fmt: skip


def card(run: Run) -> None:
    """The stage: every documents artefact and the corpus -> card."""
    config: CardConfig = run.config
    folders = {name: run.inputs[name] for name in facts.STEPS if name in run.inputs}
    metrics = {
        name: read_json(run.inputs[name] / "metrics.json")
        for name in (*folders, "signals", "classifier")
        if name in run.inputs
    }
    rates = facts.tokens_per_byte(
        run.inputs["extracted"], run.inputs.get("tokenizer"), config.token_sample, config.seed
    )
    described = {
        "title": config.title,
        "description": config.description,
        "tokens": (
            {"per_byte": {k: round(v, 6) for k, v in rates.items()}, "sampled_documents_a_source": config.token_sample}
            if rates
            else None
        ),
        "funnel": facts.funnel(metrics, rates),
        "corpus": facts.corpus_facts(run.inputs["corpus"]),
        "mixture": {
            s: {k: e[k] for k in ("share", "epochs")} for s, e in sorted(metrics["corpus"]["by_source"].items())
        },
        "heldout": metrics["corpus"]["heldout"],
        "canaries": metrics["corpus"].get("canaries"),
        "private_data_masked": facts.private(metrics.get("edited", {})),
        "duplicates": facts.copies(run.inputs["deduped"]) if "deduped" in run.inputs else None,
        "benchmark_overlap": metrics.get("clean", {}).get("tasks"),
        "languages_found": metrics.get("signals", {}).get("languages"),
        "harmful_language": _harm(run),
        "identity": analyse(_texts(run.inputs["corpus"])),
        "quality_classifier": _classifier(metrics.get("classifier")),
    }
    write_atomic(run.out / "card.json", facts.as_json(described))
    write_atomic(run.out / "funnel.csv", _csv(_funnel_table(described)))
    write_atomic(run.out / "lengths.csv", _csv(described["corpus"]["lengths"]))
    samples = draw({k: v for k, v in folders.items() if k != "corpus"}, run.inputs["corpus"], config)
    write_atomic(run.out / "card.html", _render("card.html.j2", card=described, strata=_strata(samples)))
    page = _render("browse.html.j2", title=config.title, data=_embedded(samples), names=list(FLAG_NAMES.items()))
    write_atomic(run.out / "browse.html", page)
    first, last = described["funnel"][0], described["funnel"][-1]
    run.write_metrics(
        {
            "samples": len(samples),
            "documents": described["corpus"]["documents"],
            "bytes": described["corpus"]["bytes"],
            "kept_share_of_bytes": round(last["bytes_in"] / max(first["bytes_in"], 1), 6),
            **({"tokens": last["tokens_out"]} if rates else {}),
            **({"quality_classifier": described["quality_classifier"]} if described["quality_classifier"] else {}),
            "licences": {e["name"]: e["share"] for e in described["corpus"]["licence"]},
            "languages": {e["name"]: e["share"] for e in described["corpus"]["lang"]},
        }
    )  # fmt: skip
    run.log(f"{len(samples)} samples of {len(_strata(samples))} strata; open {run.out.name}/card.html and browse.html")


def _texts(corpus: Path) -> Iterator[pl.Series]:
    for path in sorted((corpus / "train").glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(2000, columns=["text"]):
            yield pl.from_arrow(batch)["text"]  # type: ignore[index]


def _harm(run: Run) -> dict | None:
    """What the word lists and the classifier found among the documents that were measured."""
    if "signals" not in run.inputs:
        return None
    table = pl.scan_parquet(run.inputs["signals"] / "part-*.parquet")
    if "harm_words" not in table.collect_schema():
        return None
    row = table.select(
        pl.col("harm_words").count().alias("documents_with_a_list"),
        (pl.col("harm_words") > 0).sum().alias("documents"),
        pl.col("harm_words").sum().alias("words"), pl.col("harm_score").count().alias("documents_classified"),
        (pl.col("harm_score") > 0.5).sum().alias("documents_above_half"),
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    return {name: int(value) for name, value in row.items()}


def _classifier(metrics: dict | None) -> dict | None:
    return metrics and {
        "auc": metrics["auc"],
        "calibration_error": metrics["calibrated"]["error"],
        "documents": metrics["documents"],
    }


def _funnel_table(described: dict) -> list[dict]:
    return [
        {"step": row["step"], "source": source, **entry}
        for row in described["funnel"]
        for source, entry in row["by_source"].items()
    ]


def _csv(rows: list[dict]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["empty"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _strata(samples: list[Sample]) -> list[tuple[str, str, int]]:
    counts: dict[tuple[str, str], int] = {}
    for sample in samples:
        counts[sample.stage, sample.rule] = counts.get((sample.stage, sample.rule), 0) + 1
    return [(stage, rule, n) for (stage, rule), n in counts.items()]


def _embedded(samples: list[Sample]) -> Markup:
    """Samples as JSON that can stand in a script element: untrusted text can neither end it nor start another."""
    text = json.dumps([s.as_dict() for s in samples], ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704


def _render(template: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(mb=lambda n: f"{n / 1e6:,.2f}", percent=lambda x: f"{x:.2%}", count=lambda n: f"{n:,}")
    return environment.get_template(template).render(**values) + "\n"
