"""The stages as the command line declares them; `labels export` is a way to write `labels-export`."""

from __future__ import annotations

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
