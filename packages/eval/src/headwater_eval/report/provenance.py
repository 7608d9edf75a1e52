"""Chapters on where everything comes from: lineage, licences, what it cost, versions and parameters."""

from __future__ import annotations

import polars as pl

from .chart import bars
from .data import composition
from .document import Block, Details, Figure, Section, Table, Text
from .inputs import Lineage
from .lineage import draw, made_from
from .tables import metrics_tables, settings_table
from .units import NONE, count, percent, seconds, size


def lineage_graph(lineage: Lineage) -> Section | None:
    """What was made from what, by the hashes in the manifests."""
    if not lineage.artefacts:
        return None
    rows = []
    for name, inputs in made_from(lineage).items():
        artefact = lineage.artefacts[name]
        said = ", ".join(maker or f"{given} (not at hand)" for given, maker in inputs.items())
        m = artefact.manifest
        rows.append(
            (name, f"{m.package} {m.version}", m.stage, said or NONE, size(artefact.size()), artefact.hash[:12])
        )
    told = (
        "An arrow means that the manifest of the lower artefact holds the hash of the upper one's manifest. "
        "The hash in a box is the first digits of the sha256 of its manifest.json."
    )
    columns = ("artefact", "made by", "stage", "from", "#size", "manifest")
    picture = Figure("Artefacts of this run, from sources to scores.", lambda width: draw(lineage, width))
    return Section("lineage", "Lineage", [Text(told), picture, Table("Artefacts", columns, rows)])


def licences(lineage: Lineage) -> Section | None:
    """The licences of the corpus' text, with their shares."""
    corpus = lineage["corpus"]
    if corpus is None:
        return None
    shape = composition(corpus)
    total = shape["bytes"].sum() or 1
    grouped = (
        shape.group_by("licence")
        .agg(pl.col("documents", "bytes").sum(), pl.col("source").unique().sort())
        .sort(["bytes", "licence"], descending=[True, False])
    )
    rows = [
        (
            str(r["licence"]),
            percent(r["bytes"] / total),
            size(r["bytes"]),
            count(r["documents"]),
            ", ".join(map(str, r["source"])),
        )
        for r in grouped.to_dicts()
    ]
    columns = ("licence", "#share of text", "#text", "#documents", "sources")
    return Section("licences", "Licences", [Table("Licences of the corpus by share of its text", columns, rows)])


def costs(lineage: Lineage) -> Section | None:
    """Wall time, CPU time and peak memory of each stage."""
    records = lineage.records
    if not records:
        return None
    wall, cpu = sum(r.wall_s for r in records), sum(r.cpu_s for r in records)
    table = [
        (
            r.name, f"{r.package} {r.version}", seconds(r.wall_s), percent(r.wall_s / wall if wall else None),
            seconds(r.cpu_s), f"{count(r.peak_rss_mb)} MB", str(r.attempts),
        )
        for r in records
    ]  # fmt: skip
    most = f"{count(max(r.peak_rss_mb for r in records))} MB"
    table.append(("all", "", seconds(wall), percent(1.0), seconds(cpu), most, str(sum(r.attempts for r in records))))
    columns = ("stage", "package", "#wall time", "#share", "#CPU time", "#peak memory", "#attempts")
    told = (
        "As each stage measured itself. An attempt that was killed and resumed counts in the total of its stage, "
        "up to its last clean end; stages may have run at the same time."
    )
    picture = Figure(
        "Wall time of each stage.",
        lambda width: bars(width, "wall time of each stage", [(r.name, r.wall_s, seconds(r.wall_s)) for r in records]),
    )
    return Section("costs", "Time and memory", [Text(told), picture, Table("Cost of each stage", columns, table)])


def parameters(lineage: Lineage) -> Section | None:
    """Every stage's resolved config and every figure of its metrics.json."""
    if not lineage.artefacts:
        return None
    blocks: list[Block] = [Text("What each stage was told, with every default filled in, and all that it measured.")]
    for name, artefact in lineage.artefacts.items():
        m = artefact.manifest
        inner: list[Block] = [settings_table("Parameters", m.config)]
        inner += metrics_tables("Figures", artefact.metrics)
        blocks.append(Details(f"{name} ({m.package} {m.stage})", inner))
    return Section("parameters", "Parameters and figures of each stage", blocks)
