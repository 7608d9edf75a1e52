"""The stages as the command line declares them, and `labels export` as a way to write `labels-export`."""

from __future__ import annotations

import json

from .._contracts.stage import Stage
from .config import LabelsExportConfig, LabelsImportConfig, SampleConfig

STAGES = (
    Stage(
        name="sample",
        summary="Draw completions of prompts from the current policy, or from several, for people to rank.",
        reads={"prompts": ("instructions", "preferences"), "policy": ("export",), "*": ("export",)},
        writes="completions",
        cost="one policy in memory at a time; a killed run goes on after its last batch",
        config=SampleConfig,
        run="headwater_align.labels.sample:run",
        code=("headwater_model",),
    ),
    Stage(
        name="labels-export",
        summary="Write completions as comparisons to rank: an offline page, a table, Label Studio, Argilla.",
        reads={"completions": ("completions",)},
        writes="labelsheet",
        cost="seconds",
        config=LabelsExportConfig,
        run="headwater_align.labels.export:run",
    ),
    Stage(
        name="labels-import",
        summary="Read the rankings that labellers saved: preference records, and how far labellers agree.",
        reads={"sheet": ("labelsheet",)},
        writes="labels",
        cost="seconds",
        config=LabelsImportConfig,
        run="headwater_align.labels.importing:run",
    ),
)
ACTIONS = ("export", "import")


def spelled_out(argv: list[str]) -> list[str]:
    """`labels export ...` -> `labels-export ...`; the files after `labels import` -> `--set files=[...]`."""
    if len(argv) < 2 or argv[0] != "labels" or argv[1] not in ACTIONS:
        return argv
    options, files = argv[2:], []
    if argv[1] == "import":
        while options and not options[0].startswith("-"):
            files.append(options.pop(0))
    named = ["--set", f"files={json.dumps(files)}"] if files else []
    return [f"labels-{argv[1]}", *options, *named]
