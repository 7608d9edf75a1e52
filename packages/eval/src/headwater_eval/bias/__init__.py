"""Tests of bias and toxicity, one file each; docs/evaluate-bias.md says what each measures."""

from dataclasses import replace

from .bbq import BBQ
from .bold import BOLD
from .crows_pairs import CROWS_PAIRS
from .ethos import ETHOS
from .realtoxicityprompts import REALTOXICITYPROMPTS
from .saferdialogues import SAFERDIALOGUES, SAFERDIALOGUES_LIKELIHOOD
from .safety_bench import SAFETY_BENCH
from .stereoset import STEREOSET
from .winobias import WINOBIAS
from .winogender import WINOGENDER

BENCHMARKS = tuple(
    replace(test, suites=("bias", "tiny") if test is CROWS_PAIRS else ("bias",), shots_from="their papers: zero-shot")
    for test in (
        CROWS_PAIRS,
        STEREOSET,
        BBQ,
        WINOBIAS,
        WINOGENDER,
        ETHOS,
        REALTOXICITYPROMPTS,
        BOLD,
        SAFERDIALOGUES,
        SAFERDIALOGUES_LIKELIHOOD,
        SAFETY_BENCH,
    )
)
