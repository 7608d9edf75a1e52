"""lm-eval, imported offline and quiet: the only module that imports it.

Its data and metric libraries read these variables when they are imported, so they are set here first. What is
handed on is the evaluator's core: `simple_evaluate` around it would scan 13,000 task files (7 s) and record
host, time and hardware (2.4 s), which would make the same scores different bytes on every machine.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1", DISABLE_MULTIPROC="1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval.tasks  # noqa: E402
import lm_eval.utils  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from jinja2 import Template  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import LM, TemplateLM  # noqa: E402
from lm_eval.api.registry import get_aggregation, get_metric_aggregation, get_model  # noqa: E402
from lm_eval.api.samplers import ContextSampler  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.evaluator import evaluate  # noqa: E402
from lm_eval.models import MODEL_MAPPING  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: E402

logging.getLogger("lm_eval").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="sklearn")  # CB's F1 of a class that nobody picked is 0, which is right
disable_progress_bars()


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Template:
    return lm_eval.utils.env.from_string(template)


def _apply_template(template: str, doc: dict) -> str:
    return _compiled(template).render(**doc)


lm_eval.utils.apply_template = _apply_template  # lm-eval compiles a prompt's template anew for every document and shot

STOCK_TASKS = Path(lm_eval.tasks.__file__).parent
BACKENDS = sorted(MODEL_MAPPING)
"""lm-eval's names of the models that it can ask: hf, vllm, openai-completions, ..."""

NAMED_AGGREGATIONS = ("mean", "perplexity", "bleu", "ter", "chrf")


def aggregation(metric: str, how: str | Callable | None) -> str | Callable:
    """How a YAML's metric is aggregated over items: one of NAMED_AGGREGATIONS, else the function."""
    function = how if callable(how) else get_aggregation(how) if how else get_metric_aggregation(metric)
    return {get_aggregation(name): name for name in NAMED_AGGREGATIONS}.get(function, function)


__all__ = [
    "BACKENDS",
    "LM",
    "STOCK_TASKS",
    "ConfigurableTask",
    "ContextSampler",
    "Dataset",
    "Instance",
    "TemplateLM",
    "aggregation",
    "evaluate",
    "get_model",
    "get_rolling_token_windows",
    "load_yaml",
    "make_disjoint_window",
]
