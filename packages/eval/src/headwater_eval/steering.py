"""Output steering in evaluation: a blocklist and experts inside the native scorer, re-ranking around any model.

What the model writes is steered (generate_until); log-likelihoods are the model's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ._contracts.errors import UserError
from ._contracts.manifest import manifest_hash, sha256_file
from .engine import LM, Instance
from .lm import decoding
from .steering_config import RerankConfig, SteeringConfig
from .toxicity.judge import Judge
from .toxicity.judge import load as load_judge
from .wrapped import WrappedLM

EXPERTS: tuple[str, ...] = ("expert", "anti")


def plain(config: SteeringConfig, toxicity: Path | None) -> dict[str, Any]:
    """The steering of a `ModelSpec`: plain values, with the folders on this machine; {} for none.

    Args:
        toxicity: classifier artefact, for re-ranking.

    Raises:
        UserError: re-ranking without a classifier.
    """
    found: dict[str, Any] = {}
    if config.blocklist:
        found["blocklist"] = config.blocklist
    if experts := config.experts:
        found |= {name: value for name, value in (("expert", experts.expert), ("anti", experts.anti)) if value}
        found |= {"alpha": experts.alpha, "top_p": experts.top_p}
    if config.rerank:
        if toxicity is None:
            raise UserError(
                "steering.rerank needs a classifier of toxic text: make one by headwater-eval toxicity and hand it "
                "over (evaluate: --in toxicity=DIR; run: --toxicity DIR)"
            )
        found |= {"rerank": config.rerank.model_dump(), "judge": str(toxicity)}
    return found


def identify(steering: dict[str, Any], experts: dict[str, dict[str, str]]) -> dict[str, Any]:
    """All that steered answers depend on beside the model, by content.

    Args:
        experts: expert or anti -> its files' hashes.
    """
    judge = {"judge": manifest_hash(Path(steering["judge"]))} if "judge" in steering else {}
    return {**steering, **experts, **judge, "code": sha256_file(Path(__file__))}


def steered(lm: LM, steering: dict[str, Any]) -> LM:
    """A model whose written text is steered.

    Raises:
        UserError: a blocklist or experts for a model that headwater-model does not run; and as its `guides`.
    """
    if any(name in steering for name in ("blocklist", *EXPERTS)):
        scorer: Any = getattr(lm, "scorer", None)
        if not hasattr(scorer, "steer"):
            raise UserError(
                "a blocklist and experts steer a model that headwater-model runs, token by token; of any other only "
                "steering.rerank is possible"
            )
        folders = {name: Path(steering[name]) for name in EXPERTS if name in steering}
        weights = {name: steering[name] for name in ("alpha", "top_p") if name in steering}
        scorer.steer(phrases=steering.get("blocklist", ()), **folders, **weights)
    if "rerank" in steering:
        return Reranked(lm, load_judge(Path(steering["judge"])), RerankConfig(**steering["rerank"]))
    return lm


class Reranked(WrappedLM):
    """An lm-eval model, any, of whose texts the least toxic of several is kept.

    Of a task that samples, all candidates are samples; of one that asks for the likeliest text the first candidate is
    that, and the others are samples. A candidate without text is kept only where all are; of equals the first.
    """

    def __init__(self, lm: LM, judge: Judge, config: RerankConfig):
        super().__init__(lm)
        self._judge, self._config = judge, config

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """The model's own."""
        return self.lm.loglikelihood(requests)

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = True) -> list[float]:
        """The model's own."""
        return self.lm.loglikelihood_rolling(requests)

    def generate_until(self, requests: list, disable_tqdm: bool = True) -> list[str]:
        """One text a request: that of the lowest probability of being toxic among its candidates."""
        asked = [candidate for request in requests for candidate in self._candidates(request)]
        texts = self.lm.generate_until(asked)
        toxicity = self._judge.scores(texts)
        n = self._config.candidates
        return [
            texts[start + self._choice(texts[start : start + n], toxicity[start : start + n])]
            for start in range(0, len(texts), n)
        ]

    def _candidates(self, request: Instance) -> list[Instance]:
        prompt, options = request.args
        drawn = options
        if decoding(options, 1).temperature == 0:
            drawn = {
                **options, "do_sample": True, "temperature": self._config.temperature, "top_p": self._config.top_p
            }  # fmt: skip
        more = [Instance("generate_until", {}, (prompt, drawn), i) for i in range(1, self._config.candidates)]
        return [request, *more]

    def _choice(self, texts: list[str], toxicity: np.ndarray) -> int:
        blank = np.array([not text.strip() for text in texts])
        if not blank[0] and toxicity[0] <= self._config.enough:
            return 0
        return int(np.lexsort((toxicity, blank))[0])
