"""clean: edit the text of every document: normalise, drop lines, mask private data. Counted, document by document.

(site lines: count each site's lines over all documents first)
block by block: normalise -> lines -> privacy -> part-N.parquet with clean_* columns, rejects
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config.clean import EDITS, CleanConfig, Steps
from ..documents import (
    Block,
    blocks,
    count_folder,
    count_rejects,
    draws,
    funnel,
    part_name,
    publish_parts,
    rejects_frame,
    write_part,
    write_split,
)  # fmt: skip
from ..harm.modification import counterfactual, neutral_terms
from . import line_rules, normalise
from .privacy import find_private, mask

NO_LINES: frozenset[int] = frozenset()


def clean(run: Run) -> None:
    """The stage: documents -> documents with edited text and a column of counts a step."""
    config: CleanConfig = run.config
    shards = blocks(run.inputs["documents"])
    repeated = run.work / "site_lines.parquet"
    if _uses_site_lines(config):
        lines = run.work / "lines"
        fan_out(run, "site-lines", partial(count_lines_block, lines, config), shards, config)
        find_site_lines(lines, config).write_parquet(repeated)
    fan_out(run, "clean", partial(clean_block, run.work / "parts", repeated, config), shards, config)
    publish_parts(run.work / "parts", run.out)
    metrics = funnel(count_folder(run.inputs["documents"]), count_folder(run.out), [count_rejects(run.out)])
    columns = [f"clean_{name}" for name in EDITS]
    kept = pl.scan_parquet(run.out / "part-*.parquet")
    totals = kept.select(pl.col(columns).sum()).collect(engine="streaming").row(0, named=True)
    touched = kept.select((pl.col(columns) > 0).sum()).collect(engine="streaming").row(0, named=True)
    metrics["edits"] = {name: int(totals[f"clean_{name}"]) for name in EDITS}
    metrics["documents_edited"] = {name: int(touched[f"clean_{name}"]) for name in EDITS}
    run.write_metrics(metrics)
    done = ", ".join(f"{name} {n}" for name, n in metrics["edits"].items() if n)
    run.log(f"{metrics['documents_out']} of {metrics['documents_in']} documents; edits: {done or 'none'}")


def clean_block(parts: Path, repeated: Path, config: CleanConfig, block: Block) -> None:
    """Clean one block's documents and write them and its rejects."""
    documents = block.read()
    sites = _repeated_by_site(repeated)
    steps = {
        key: config.steps_for(*key) for key in documents.select("source", "category").unique(maintain_order=True).rows()
    }
    texts, counts, lost = [], [], []
    columns = documents.select("id", "source", "category", "url", "lang", "text")
    for id_, source, category, url, lang, text in columns.iter_rows():
        site = site_of(url, source)
        edited, edits, share = clean_text(
            text, steps[source, category], config, sites.get(site, NO_LINES), half(id_, lang)
        )
        texts.append(edited)
        counts.append(edits)
        lost.append(share)
    columns = {f"clean_{name}": pl.Series([c[name] for c in counts], dtype=pl.Int32) for name in EDITS}
    rule = [
        "refinedweb_lines" if share > config.max_removed_words else "empty" if not text.strip() else None
        for text, share in zip(texts, lost, strict=True)
    ]
    judged = documents.with_columns(rule=pl.Series(rule, dtype=pl.String), lost=pl.Series(lost, dtype=pl.Float64))
    kept = documents.with_columns(text=pl.Series(texts, dtype=pl.String), **columns).filter(judged["rule"].is_null())
    removed = judged.filter(pl.col("rule").is_not_null())
    threshold = pl.when(pl.col("rule") == "refinedweb_lines").then(pl.lit(config.max_removed_words))
    rejects = rejects_frame(removed, "clean", pl.col("rule"), pl.col("lost"), threshold)
    write_split(parts, block.number, kept, rejects)


def clean_text(
    text: str,
    steps: Steps,
    config: CleanConfig,
    repeated: frozenset[int] | set[int] = NO_LINES,
    swapped: bool = False,
) -> tuple[str, Counter[str], float]:
    """One text through its steps.

    Args:
        repeated: keys of the lines that the document's site repeats.
        swapped: whether it is of the half that `counterfactual` swaps.

    Returns:
        The text, the number of edits a step, and the share of words that RefinedWeb's line rules took (0 without them).
    """
    edits: Counter[str] = Counter()
    share = 0.0
    for name, edit in (
        ("mojibake", normalise.fix_mojibake),
        ("unicode_form", lambda t: normalise.normalise_form(t, steps.unicode_form)),
        ("invisible", normalise.remove_invisible),
        ("markup", normalise.remove_markup),
        ("homoglyphs", normalise.fix_homoglyphs),
        ("emoji", normalise.name_emoji),
        ("misspellings", normalise.correct_misspellings),
        ("site_lines", lambda t: line_rules.site_lines(t, repeated)),
        ("neutral_terms", neutral_terms),
        ("c4_lines", lambda t: line_rules.c4_lines(t, steps.c4_terminal)),
    ):
        if getattr(steps, name):
            text, edits[name] = edit(text)
    if steps.counterfactual and swapped:
        text, edits["counterfactual"] = counterfactual(text, steps.counterfactual_names)
    if steps.refinedweb_lines:
        text, edits["refinedweb_lines"], share = line_rules.refinedweb_lines(text)
    if steps.blanks:
        text, edits["blanks"] = normalise.normalise_blanks(text)
    spans = find_private(text, steps, config.phone_region)
    if spans:
        text = mask(text, spans, config.pseudonyms)
        edits.update(kind for _, _, kind, _ in spans)
    return text, edits, share


def half(id_: str, lang: str) -> bool:
    """Whether a document is of the half that `counterfactual` swaps: an English one, by hash."""
    return lang in ("en", "") and draws("counterfactual", [id_])[0] % 2 == 0


def site_of(url: str, source: str) -> str:
    """The site a document belongs to: its address's host, else its source."""
    return urlsplit(url).netloc or source


def _uses_site_lines(config: CleanConfig) -> bool:
    changes = (*config.by_category.values(), *config.by_source.values())
    return config.steps.site_lines or any(c.get("site_lines") for c in changes)


def count_lines_block(lines: Path, config: CleanConfig, block: Block) -> None:
    """In how many of a block's documents each line of each site stands: site, line (uint64), documents."""
    counts: Counter[tuple[str, int]] = Counter()
    documents: Counter[str] = Counter()
    for url, source, text in block.read(["url", "source", "text"]).iter_rows():
        site = site_of(url, source)
        documents[site] += 1
        counts.update((site, key) for key in line_rules.line_keys(text))
    rows = sorted((site, key, n, documents[site]) for (site, key), n in counts.items())
    schema = {"site": pl.String, "line": pl.UInt64, "documents": pl.UInt32, "of": pl.UInt32}
    write_part(lines / part_name(block.number), pl.DataFrame(rows, schema=schema, orient="row"))


def find_site_lines(lines: Path, config: CleanConfig) -> pl.DataFrame:
    """The lines that a site repeats: site, line."""
    counted = pl.scan_parquet(lines / "part-*.parquet", include_file_paths="file")
    sizes = counted.group_by("file", "site").agg(pl.col("of").first()).group_by("site").agg(pl.col("of").sum())
    found = (
        counted.group_by("site", "line")
        .agg(pl.col("documents").sum())
        .filter(pl.col("documents") >= config.site_documents)
        .join(sizes, on="site")
        .filter(pl.col("documents") >= config.site_share * pl.col("of"))
    )
    return found.select("site", "line").sort("site", "line").collect(engine="streaming")


def _repeated_by_site(repeated: Path) -> dict[str, set[int]]:
    if not repeated.exists():
        return {}
    table = pl.read_parquet(repeated).group_by("site").agg("line")
    return {site: set(lines) for site, lines in table.iter_rows()}
