"""The comparison as chapters, for the page and its Markdown twin, and as lines of a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from ..report.chart import Interval, dots
from ..report.document import Block, Figure, Notice, Section, Table, Text
from ..report.units import NONE, count, fixed, short_count, signed

Json = dict[str, Any]

ALPHA = 0.05
SERIES = 6
"""As many colours the charts have."""
METHOD = (
    "Both runs answered the same items, so each item is compared with itself. The interval of a difference is a 95% "
    "percentile bootstrap over items, or over passages where items share one. p is of McNemar's exact test where an "
    "item scores 0 or 1 and stands alone, else of a permutation test that swaps the two runs passage by passage. "
    "Holm's correction is over the tasks of a pair of runs: of all tasks with an adjusted p below 0.05, the chance "
    "that even one differs by luck is at most 5%."
)


def subtitle(found: Json) -> str:
    """What is compared, in a line."""
    n = sum(task["n"] for task in found["tasks"].values())
    return f"{', '.join(found['runs'])}: {len(found['tasks'])} tasks, {count(n)} items that the runs have in common"


def sections(found: Json) -> list[Section]:
    """The chapters: scores of all runs, a chapter a pair, and what could not be compared."""
    chapters = [_scores(found), *(_pair(pair, found) for pair in found["pairs"])]
    notices = list(_notices(found))
    if notices:
        chapters.append(Section("left-out", "What was left out", [Notice(text) for text in notices]))
    return chapters


def lines(pair: Json) -> Iterator[str]:
    """One pair for the log."""
    for name, row in pair["tasks"].items():
        yield (
            f"{pair['before']} to {pair['after']}, {name}: {_difference(row['difference'])}, {row['up']} up, "
            f"{row['down']} down, p {_p(row['p'])} ({row['test']}), by Holm {_p(row['p_holm'])}"
        )


def _scores(found: Json) -> Section:
    runs = list(found["runs"])
    rows = []
    for name, task in found["tasks"].items():
        scores = (_interval(task["scores"].get(run)) for run in runs)
        rows.append((name, task["metric"], count(task["n"]), fixed(task["chance"]), *scores))
    blocks: list[Block] = [
        Table("Scores on the common items, with 95% intervals",
              ("task", "metric", "#n", "#chance", *(f"#{run}" for run in runs)), rows)
    ]  # fmt: skip
    shares = {n: t for n, t in found["tasks"].items() if t["kind"] in ("choice", "bias") or t["chance"] is not None}
    if shares and len(runs) <= SERIES:
        blocks.insert(
            0,
            Figure("Scores of every run; the tick is chance.", lambda width: _picture(width, runs, shares)),
        )
    sized = {run: about["parameters"] for run, about in found["runs"].items() if about["parameters"]}
    if sized:
        rows = [(run, short_count(parameters)) for run, parameters in sorted(sized.items(), key=lambda s: s[1])]
        blocks.append(Table("Models by size", ("run", "#parameters"), rows))
    return Section("scores", "Scores of every run", blocks)


def _picture(width: int, runs: list[str], tasks: Json) -> Markup:
    rows = [(name, [_drawn(task["scores"].get(run)) for run in runs], task["chance"]) for name, task in tasks.items()]
    return dots(width, "scores of every run", runs, rows, "score")


def _pair(pair: Json, found: Json) -> Section:
    before, after = pair["before"], pair["after"]
    return Section(f"{before}-{after}", f"{before} to {after}", [*pair_blocks(pair, found), Text(METHOD)])


def pair_blocks(pair: Json, found: Json) -> list[Block]:
    """One pair: which tasks differ, in words, and the table of all."""
    before, after = pair["before"], pair["after"]
    clear = {name: row for name, row in pair["tasks"].items() if row["p_holm"] < ALPHA}
    higher = [name for name, row in clear.items() if row["difference"]["value"] > 0]
    lower = [name for name, row in clear.items() if row["difference"]["value"] < 0]
    told = f"{after} against {before}: {len(pair['tasks'])} tasks. "
    told += f"Higher on {', '.join(higher) or 'none'}; lower on {', '.join(lower) or 'none'}; "
    told += f"no difference shown on the other {len(pair['tasks']) - len(clear)}."
    blocks: list[Block] = [Text(told)]
    rows = [
        (
            name, count(found["tasks"][name]["n"]), _difference(row["difference"]), count(row["up"]),
            count(row["down"]), _p(row["p"]), _p(row["p_holm"]), row["test"],
        )
        for name, row in pair["tasks"].items()
    ]  # fmt: skip
    columns = ("task", "#n", "#difference", "#up", "#down", "#p", "#p by Holm", "test")
    blocks.append(Table(f"{after} less {before}; up and down count the items whose score rose or fell", columns, rows))
    if pair["average"]:
        tasks = len(pair["average"]["tasks"])
        blocks.append(Text(f"Mean over the {tasks} multiple-choice tasks: {_difference(pair['average'])}."))
    return blocks


def _notices(found: Json) -> Iterator[str]:
    for name, task in found["tasks"].items():
        if any(task["left_out"].values()):
            told = ", ".join(f"{n} of {run}" for run, n in task["left_out"].items() if n)
            yield f"{name}: the runs have other items; compared are the {task['n']} in common, left out {told}."
        if task["other_prompts"]:
            yield f"{name}: {task['other_prompts']} of {task['n']} items were asked in other words (shots or template)."
    yield from found["remarks"]


def _interval(row: Json | None) -> str:
    if row is None:
        return NONE
    if row["low"] is None:
        return fixed(row["value"])
    return f"{fixed(row['value'])} [{fixed(row['low'])}, {fixed(row['high'])}]"


def _difference(row: Json) -> str:
    if row["low"] is None:
        return signed(row["value"])
    return f"{signed(row['value'])} [{signed(row['low'])}, {signed(row['high'])}]"


def _drawn(row: Json | None) -> Interval | None:
    if row is None:
        return None
    ends = (row["value"], row["value"]) if row["low"] is None else (row["low"], row["high"])
    return Interval(row["value"], *ends)


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else fixed(value, 4)
