"""A page a suite in Markdown, made from the catalogue: `headwater-eval tasks --pages docs/suites`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ._contracts.errors import UserError
from ._contracts.manifest import write_atomic
from .benchmark import Benchmark
from .catalogue import SUITES, suite
from .listing import definition

TOLD = {
    "alignment": "What alignment is for: answers that are true, helpful and harmless. TruthfulQA, BIG-bench's tasks on "
    "it, and the tests of bias and toxicity of InstructGPT (Ouyang et al. 2022, arXiv:2203.02155, section 3.6)."
    "|evaluate-tasks.md",
    "bias": "What a model holds of groups of people, and what it says of them.|evaluate-bias.md",
    "bigbench": "The tasks of BIG-bench that lm-eval names, by choosing and by writing (Srivastava et al. 2022, "
    "arXiv:2206.04615).|evaluate-tasks.md",
    "closed-book": "Questions answered from memory: nothing to read is given.|evaluate-tasks.md",
    "code": "Programs that are run against tests, in a sandbox; off unless switched on.|evaluate-code.md",
    "commonsense": "What everybody knows of things and people, by multiple choice.|evaluate-tasks.md",
    "completion": "How a text goes on: its last word, its next sentence, its ending.|evaluate-tasks.md",
    "full": "Every benchmark of the catalogue.|evaluate-tasks.md",
    "gpt3": "The tasks of the GPT-3 paper with its numbers of shots (Brown et al. 2020, arXiv:2005.14165, table "
    "H.1).|evaluate-tasks.md",
    "inference": "Whether a sentence follows from, or answers, another.|evaluate-tasks.md",
    "knowledge": "Subjects of school, university and profession, and what people commonly get wrong.|evaluate-tasks.md",
    "probes": "Behaviours, each asked in several wordings: arithmetic in digits and in words, negation and the like; a "
    "pass rate a class.|evaluate-review.md",
    "reading": "Questions about a passage that is given.|evaluate-tasks.md",
    "reasoning": "Sums, word problems worked out step by step, scrambled words.|evaluate-tasks.md",
    "smoke": "A few tasks in seconds, to see that everything runs.|evaluate-tasks.md",
    "super-glue": "All eight tasks of SuperGLUE (Wang et al. 2019, arXiv:1905.00537).|evaluate-tasks.md",
    "tiny": "What a laptop's run of the lineage has data for.|evaluate-tasks.md",
    "toxicity": "Whether a model writes what hurts, and tells what does; judged by a local classifier."
    "|evaluate-bias.md",
    "translation": "News sentences from and into English, by BLEU (sacreBLEU).|evaluate-tasks.md",
    "winograd": "What a pronoun refers to, where only sense can tell.|evaluate-tasks.md",
}
"""Suite -> what it is for, and the page on method and definitions."""


def write(folder: Path) -> None:
    """All pages, below `folder`, made if need be.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"{folder}: {e.strerror}; name another folder for the pages") from None
    for name in SUITES:
        write_atomic(folder / f"{name}.md", page(name, suite(name)))


def page(name: str, benchmarks: Sequence[Benchmark]) -> str:
    """One suite: how to run it, and a row a task or family."""
    told, more = TOLD[name].split("|")
    lines = [
        f"# Suite {name}",
        "",
        told,
        "",
        "```",
        f"headwater-eval tasks --suite {name}              # which data is on this machine",
        f"headwater-eval run --suite {name} --model MODEL --items ITEMS --out RESULTS",
        "```",
        "",
        f"{len(benchmarks)} tasks. Method, definitions of ours, where data comes from: [{more}](../{more}).",
        "Shots are the usual number and who uses it; a licence is what the authors state of the items.",
        "",
        "| task | measures | metric | shots | definition | data | licence |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *_rows(benchmarks),
    ]
    return "\n".join(lines) + "\n"


def _rows(benchmarks: Sequence[Benchmark]) -> Iterator[str]:
    families: dict[tuple[str, str], list[Benchmark]] = {}
    for benchmark in benchmarks:
        families.setdefault((benchmark.family or benchmark.name, benchmark.measures), []).append(benchmark)
    for (name, _), members in families.items():
        one = members[0]
        label = f"`{one.name}`" if len(members) == 1 else f"{name} ({len(members)})"
        shots = f"{one.shots} ({one.shots_from})" if one.shots_from else str(one.shots)
        linked = one.home.startswith("http")
        origin = f"[{one.hub or 'authors'}]({one.home})" if linked else one.hub or one.home or one.file
        cells = [label, one.measures, one.metric, shots, definition(one), origin, one.licence or "not stated"]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
