"""Chapters on data: what came in, what each step removed and examples of it, what the benchmarks ask."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl
from markupsafe import Markup

from .chart import bars
from .config import ReportConfig
from .document import Block, Details, Figure, Notice, Sample, Samples, Section, Table, Text
from .inputs import Artefact, Json, Lineage, chosen
from .tables import cell, dig, nested_table
from .units import NONE, count, cut, finite, number, percent, size

# The data's way, and what removes documents at each step.
STEPS = {
    "extracted": "extraction",
    "edited": "cleaning",
    "filtered": "quality rules",
    "deduped": "duplicates",
    "clean": "benchmark overlap",
    "corpus": "mixture",
}


# Rules of a step whose examples stand open; the rest can be unfolded.
_RULES_SHOWN = 5


def sources(lineage: Lineage) -> Section | None:
    """What was fetched, with its licence."""
    artefact = lineage["sources"]
    if artefact is None:
        return None
    found = sorted(descriptions(artefact).items(), key=lambda item: (item[1].get("role") != "corpus", item[0]))
    rows = [
        (
            str(s.get("name", folder)), str(s.get("role", NONE)), str(s.get("category", NONE)),
            str(s.get("licence", NONE)), str(s.get("language", NONE)),
            " ".join(str(s[key]) for key in ("kind", "version") if s.get(key)), count(s.get("records")),
            size(s.get("bytes")),
        )
        for folder, s in found
    ]  # fmt: skip
    columns = ("source", "role", "category", "licence", "language", "fetched as", "#records", "#fetched")
    told = "Every source with the file that was fetched for it; hashes stand in each source.json."
    return Section("sources", "Sources", [Text(told), Table("Sources by role and category", columns, rows)])


def descriptions(artefact: Artefact) -> dict[str, Json]:
    """Source folder -> its source.json."""
    files = [file for file in artefact.manifest.files if file.endswith("/source.json")]
    return {file.rpartition("/")[0]: artefact.json(file) or {} for file in sorted(files)}


def funnel(lineage: Lineage) -> Section | None:
    """Documents and bytes after each step; removals by rule and by source."""
    steps = figures_by_step(lineage)
    if not steps:
        return None
    section = Section("cleaning", "From sources to corpus")
    section.blocks.append(Figure("Text left after each step, in bytes of UTF-8.", lambda width: _left(steps, width)))
    section.blocks.append(_by_step(steps))
    section.blocks += [block for block in (_by_rule(steps), _by_source(steps)) if block]
    section.blocks += _corpus_shape(lineage)
    return section


def figures_by_step(lineage: Lineage) -> list[tuple[str, Json]]:
    """(step, its metrics.json) where it counts documents; what `mix` holds out counts as kept."""
    metrics = {name: lineage.metrics(name) for name in STEPS}
    for amount in ("documents", "bytes"):
        held = dig(metrics["corpus"], "heldout", amount)
        if finite(held) and finite(metrics["corpus"].get(f"{amount}_out")):
            metrics["corpus"][f"{amount}_out"] += held
        for source, row in (metrics["corpus"].get("by_source") or {}).items():
            row[f"{amount}_out"] = (row.get(f"{amount}_out") or 0) + (
                dig(metrics["corpus"], "heldout", "by_source", source, amount) or 0
            )
    return [(n, m) for n, m in metrics.items() if finite(m.get("documents_out")) and finite(m.get("bytes_out"))]


def _left(steps: Sequence[tuple[str, Json]], width: int) -> Markup:
    rows = []
    for name, m in steps:
        told = size(m["bytes_out"]) + (f", {count(m['documents_out'])} documents" if width > 500 else "")
        rows.append((STEPS[name], m["bytes_out"], told))
    return bars(width, "text left after each step", rows)


def _by_step(steps: Sequence[tuple[str, Json]]) -> Table:
    rows = []
    for name, m in steps:
        into, out = m.get("documents_in"), m["documents_out"]
        removed = into - out if finite(into) and name != "extracted" else None
        share = removed / into if removed is not None and into else None
        rows.append((STEPS[name], count(into), count(out), count(removed), percent(share), size(m["bytes_out"])))
    columns = ("step", "#in", "#out", "#removed", "#share", "#text out")
    return Table("Documents at each step (extraction counts records in, documents out)", columns, rows)


def _by_rule(steps: Sequence[tuple[str, Json]]) -> Table | None:
    rows = []
    for name, m in steps:
        rules = m.get("by_rule") or {}
        for rule, removed in sorted(rules.items(), key=lambda item: (-(dig(item[1], "documents") or 0), item[0])):
            documents = dig(removed, "documents")
            if documents:
                share = documents / m["documents_in"] if m.get("documents_in") else None
                fires, alone = (dig(m, key, rule) for key in ("would_fire", "would_fire_alone"))
                amounts = (count(documents), percent(share), size(dig(removed, "bytes")), count(fires), count(alone))
                rows.append((rule, *amounts, STEPS[name]))
    columns = ("rule", "#removed", "#of its input", "#text", "#fires on", "#alone on", "step")
    caption = "Removed documents by the first rule that fired; how many it fires on, and on how many no other does"
    return Table(caption, columns, rows) if rows else None


def _by_source(steps: Sequence[tuple[str, Json]]) -> Table | None:
    known = [(name, m["by_source"]) for name, m in steps if isinstance(m.get("by_source"), dict)]
    if not known:
        return None
    names = sorted({source for _, by_source in known for source in by_source})
    rows = []
    for source in names:
        sizes = [dig(by_source, source, "bytes_out") for _, by_source in known]
        first, last = sizes[0], sizes[-1] or 0
        rows.append((source, *map(size, sizes), percent(last / first) if finite(first) and first else NONE))
    heads = ("source", *(f"#{name}" for name, _ in known), "#kept")
    return Table("Text of each source after each step", heads, rows)


def _corpus_shape(lineage: Lineage) -> list[Block]:
    corpus = lineage["corpus"]
    if corpus is None:
        return []
    shape = composition(corpus)
    total = shape["bytes"].sum() or 1
    blocks: list[Block] = []
    for column, told in (("source", "source"), ("lang", "language")):
        grouped = (
            shape.group_by(column)
            .agg(pl.col("documents", "bytes", "heldout_bytes").sum())
            .sort(["bytes", column], descending=[True, False])
        )
        rows = [(str(r[column]), *_amounts(r, total)) for r in grouped.head(20).to_dicts()]
        rest = grouped.slice(20)
        if len(rest):
            rows.append((f"{len(rest)} others", *_amounts(rest.drop(column).sum().to_dicts()[0], total)))
        columns = (told, "#documents", "#text", "#share", "#of it held out")
        blocks.append(Table(f"The corpus by {told}", columns, rows))
    return blocks


def _amounts(row: Json, total: int) -> tuple[str, ...]:
    return count(row["documents"]), size(row["bytes"]), percent(row["bytes"] / total), size(row["heldout_bytes"])


def composition(corpus: Artefact) -> pl.DataFrame:
    """Documents and UTF-8 bytes of the corpus by source, licence and language: training and held-out together.

    Columns: source, licence, lang, documents, bytes, heldout_bytes.
    """
    keys = ["source", "licence", "lang"]
    frames = []
    for split in ("train", "heldout"):
        shards = sorted((corpus.folder / split).glob("*.parquet"))
        if shards:
            text_bytes = pl.col("text").str.len_bytes()
            grouped = pl.scan_parquet(shards).group_by(keys).agg(
                pl.len().alias("documents"), text_bytes.sum().alias("bytes"),
                (text_bytes.sum() * (split == "heldout")).alias("heldout_bytes"),
            )  # fmt: skip
            frames.append(grouped.collect(engine="streaming"))
    if not frames:
        return pl.DataFrame(
            schema={k: pl.String for k in keys} | dict.fromkeys(("documents", "bytes", "heldout_bytes"), pl.Int64)
        )
    return pl.concat(frames, how="vertical_relaxed").group_by(keys).agg(pl.all().sum()).sort(keys)


def removed(lineage: Lineage, config: ReportConfig) -> Section | None:
    """Documents that were removed, a few for each rule, drawn without regard to their content."""
    blocks: list[Block] = []
    for name in STEPS:
        artefact = lineage[name]
        rejects = artefact.rejects() if artefact and config.examples else None
        if rejects is None:
            continue
        shown = [
            Samples(f"{STEPS[name]}: {rule}", "", [_example(row, config.example_characters) for row in rows])
            for rule, rows in _drawn(rejects, config.examples).items()
        ]
        blocks += shown[:_RULES_SHOWN]
        if len(shown) > _RULES_SHOWN:
            blocks.append(Details(f"{len(shown) - _RULES_SHOWN} more rules: {STEPS[name]}", shown[_RULES_SHOWN:]))
    if not blocks:
        return None
    told = (
        f"Up to {config.examples} documents for each rule, the rules that remove most first. They are drawn by a hash "
        f"of their ids and cut to {config.example_characters} characters; empty lines are left out. The value is what "
        "the rule measured, beside its threshold."
    )
    return Section("removed", "Examples of what was removed", [Text(told), *blocks])


def _drawn(rejects: pl.LazyFrame, examples: int) -> dict[str, list[Json]]:
    """Rule -> rows, the rules by how much they remove; only the rows shown have their text read."""
    ids: dict[str, list[str]] = {}
    for rule, one in rejects.select("rule", "id").collect().iter_rows():
        ids.setdefault(str(rule), []).append(one)
    kept = {rule: sorted(set(found), key=lambda i: chosen(str(i)))[:examples] for rule, found in ids.items()}
    wanted = pl.LazyFrame(
        [(rule, one) for rule, found in kept.items() for one in found],
        schema={"rule": pl.String, "id": pl.String}, orient="row",
    )  # fmt: skip
    rows = rejects.join(wanted, on=["rule", "id"], how="semi").collect().to_dicts()
    rows.sort(key=lambda row: (str(row["rule"]), chosen(str(row["id"]))))
    by_rule: dict[str, list[Json]] = {rule: [] for rule in sorted(ids, key=lambda rule: (-len(ids[rule]), rule))}
    for row in rows:
        of_rule = by_rule[str(row["rule"])]
        if len(of_rule) < examples:
            of_rule.append(row)
    return by_rule


def _example(row: Json, characters: int) -> Sample:
    """A removed document with what the rule measured."""
    value, threshold = row.get("value"), row.get("threshold")
    measured = f"value {number(value)}" if finite(value) else ""
    if measured and finite(threshold):
        measured += f", threshold {number(threshold)}"
    text = re.sub(r"\n\s*\n", "\n", row.get("text") or "")
    return Sample(str(row.get("source") or NONE), cut(text, characters) or "(empty)", measured)


def items(lineage: Lineage) -> Section | None:
    """The benchmark items that the corpus was kept clean of."""
    artefact = lineage["items"]
    if artefact is None:
        return None
    by_task = artefact.metrics.get("by_task")
    told = "The same items score the models and were looked for in the corpus; what held them there was taken out."
    section = Section("items", "Benchmark items", [Text(told)])
    if not isinstance(by_task, dict) or not by_task:
        section.blocks.append(Notice("The items artefact has no figures by benchmark."))
        return section
    rows = [
        (task, *(cell(dig(row, key)) for key in ("measures", "items", "rejects", "chance", "source", "licence")))
        for task, row in by_task.items()
    ]
    columns = ("benchmark", "measures", "#items", "#malformed", "#chance", "source", "licence")
    section.blocks.append(Table("Items by benchmark", columns, rows))
    found = lineage.metrics("clean").get("tasks")
    if isinstance(found, dict) and found:
        section.blocks.append(nested_table("Items looked for in the corpus", "benchmark", found))
    return section
