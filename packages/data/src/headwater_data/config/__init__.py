"""The stages' configs: every parameter with its unit, contradictions refused. One file a part of the way."""

from .._contracts.execution import ExecutorConfig, Fanned
from .card import CardConfig
from .clean import CleanConfig
from .decontaminate import DecontaminateConfig
from .dedup import DedupConfig
from .extract import ExtractConfig
from .mix import MixConfig
from .quality import (
    ClassifierConfig,
    Comparison,
    Definitions,
    FilterConfig,
    RuleConfig,
    Selection,
    SignalsConfig,
    published_rules,
)
from .sources import Category, CollectConfig, Reader, Role, SourceConfig

__all__ = [
    "CardConfig",
    "Category",
    "ClassifierConfig",
    "CleanConfig",
    "CollectConfig",
    "Comparison",
    "DecontaminateConfig",
    "Definitions",
    "DedupConfig",
    "ExecutorConfig",
    "ExtractConfig",
    "Fanned",
    "FilterConfig",
    "MixConfig",
    "Reader",
    "Role",
    "RuleConfig",
    "Selection",
    "SignalsConfig",
    "SourceConfig",
    "published_rules",
]
