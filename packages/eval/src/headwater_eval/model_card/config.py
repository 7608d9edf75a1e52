"""Parameters of the model card: what no artefact knows."""

from __future__ import annotations

from pydantic import Field

from .._contracts.config import Config


class EnergyConfig(Config):
    """What the energy estimate assumes."""

    device: str | None = Field(
        None,
        description="what it ran on, by its key in headwater-model's hardware.yaml; null: cpu where the checkpoint's "
        "environment names no GPU",
    )
    devices: int = Field(1, ge=1, description="how many of them")
    watts: float | None = Field(None, gt=0, description="power of one device and its host, in place of the table's")
    pue: float = Field(
        1.56, ge=1, description="power of the data centre over that of its computers; 1.56: Uptime Institute 2024"
    )
    grams_per_kwh: float | None = Field(
        None, gt=0, description="grams of CO2-equivalent a kWh of the grid; null: no emissions are given"
    )
    location: str = Field("", description="where it ran, for the card")


class ModelCardConfig(Config):
    """What no artefact knows. Whatever is left out is said to be missing."""

    name: str = Field("model", min_length=1, description="name of the model")
    licence: str | None = Field(None, description="licence of the weights, an SPDX identifier or the hub's")
    licence_link: str | None = Field(None, description="where its text is, for a licence that the hub has no name for")
    intended_use: str | None = Field(None, description="what it is meant for")
    out_of_scope: str | None = Field(None, description="what it is not meant for")
    developed_by: str | None = Field(None, description="who made it")
    contact: str | None = Field(None, description="whom to ask")
    records: str = Field("runs", description="folder of run records (JSON files that --record wrote)")
    energy: EnergyConfig = Field(EnergyConfig(), description="what the energy estimate assumes")
    review_classes: int = Field(8, ge=1, description="failure classes shown of a review, the most frequent first")
