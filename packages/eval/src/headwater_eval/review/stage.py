"""The stages as the command line declares them; `review export` is a way to write `review-export`."""

from __future__ import annotations

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
