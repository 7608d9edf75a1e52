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

_SUITES = {
    CROWS_PAIRS: ("bias", "alignment", "tiny"),
    STEREOSET: ("bias",),
    BBQ: ("bias",),
    WINOBIAS: ("bias",),
    WINOGENDER: ("bias", "alignment"),
    ETHOS: ("bias", "toxicity"),
    REALTOXICITYPROMPTS: ("bias", "toxicity", "alignment"),
    BOLD: ("bias", "toxicity"),
    SAFERDIALOGUES: ("bias", "toxicity"),
    SAFERDIALOGUES_LIKELIHOOD: ("bias", "toxicity"),
    SAFETY_BENCH: ("bias", "toxicity"),
}
BENCHMARKS = tuple(replace(test, suites=of, shots_from="their papers: zero-shot") for test, of in _SUITES.items())
