"""Parameters of the report."""

from __future__ import annotations

from pydantic import Field

from .._contracts.config import Config


class ReportConfig(Config):
    """What the report shows; nothing here changes a figure."""

    title: str = Field("Headwater: report on one run", description="heading of the page")
    records: str = Field(
        "runs",
        description="folder of run records (JSON files that --record wrote), from the working directory; "
        "where it is absent, the report says so and leaves times out",
    )
    examples: int = Field(2, ge=0, description="removed documents shown for each rule")
    example_characters: int = Field(320, ge=20, description="characters shown of a removed document")
    samples: int = Field(5, ge=0, description="prompts shown with what each model makes of them")
    sample_characters: int = Field(500, ge=20, description="characters shown of a prompt or a model's text")
