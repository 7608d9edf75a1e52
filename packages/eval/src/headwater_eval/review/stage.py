"""The stages as the command line declares them, and `review export` as a way to write `review-export`."""

from __future__ import annotations

import json

from .._contracts.stage import Stage
from .config import ReviewExportConfig, ReviewImportConfig

STAGES = [
    Stage(
        name="review-export",
        summary="Draw answers of models for people to review, as a page, a table and Label Studio's tasks.",
        reads={"*": ("results",)},
        writes="reviewsheet",
        cost="seconds",
        config=ReviewExportConfig,
        run="headwater_eval.review.export:export",
    ),
    Stage(
        name="review-import",
        summary="Read what reviewers saved: failure classes with shares and examples, and how far reviewers agree.",
        reads={"sheet": ("reviewsheet",)},
        writes="review",
        cost="seconds",
        config=ReviewImportConfig,
        run="headwater_eval.review.findings:findings",
    ),
]
ACTIONS = ("export", "import")


def spelled_out(argv: list[str]) -> list[str]:
    """`review export ...` -> `review-export ...`; the files after `review import` -> `--set files=[...]`."""
    if len(argv) < 2 or argv[0] != "review" or argv[1] not in ACTIONS:
        return argv
    options, files = argv[2:], []
    if argv[1] == "import":
        while options and not options[0].startswith("-"):
            files.append(options.pop(0))
    named = ["--set", f"files={json.dumps(files)}"] if files else []
    return [f"review-{argv[1]}", *options, *named]
