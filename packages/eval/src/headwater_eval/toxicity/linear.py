"""Logistic regression over hashed words and character n-grams: small, fast, the same on every machine.

Words alone miss spellings that evade lists; character n-grams within words (Nobata et al. 2016, section 5, found them
the strongest single feature for abusive language) catch them. Features are hashed (Weinberger et al. 2009,
arXiv:0902.2206), so that the model is an array of weights and nothing has to be pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from .._contracts.errors import UserError

WEIGHTS = "weights.parquet"
BUCKETS = 2**18
"""Of each of the two families of features."""


def features(texts: list[str]) -> csr_matrix:
    """Sparse float64 [n, 2 * BUCKETS]: words and pairs of them; character 2- to 5-grams within words; each row of
    each family has length 1."""
    common = {"n_features": BUCKETS, "alternate_sign": False, "norm": "l2", "lowercase": True}
    words = HashingVectorizer(analyzer="word", token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2), **common)
    pieces = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common)
    return hstack([words.transform(texts), pieces.transform(texts)], format="csr")


@dataclass(frozen=True)
class LinearModel:
    """Weights of the features, and the intercept."""

    weights: np.ndarray
    """Float32 [2 * BUCKETS]."""
    intercept: float

    @classmethod
    def train(cls, texts: list[str], toxic: np.ndarray, inverse_penalty: float) -> LinearModel:
        """Fit to labels in [0, 1]: a share of annotators counts as that much of a toxic text and the rest of a
        harmless one.

        Args:
            toxic: float [n].
            inverse_penalty: C of the L2 penalty.
        """
        x, n = features(texts), len(texts)
        fitted = LogisticRegression(C=inverse_penalty, max_iter=1000, tol=1e-6).fit(
            vstack([x, x], format="csr"), np.repeat([1, 0], n), sample_weight=np.concatenate([toxic, 1 - toxic])
        )
        return cls(fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0]))

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """Float64 [n]."""
        return 1 / (1 + np.exp(-(features(texts) @ self.weights.astype(float) + self.intercept)))

    def save(self, folder: Path) -> None:
        """The weights that are not 0, as Parquet."""
        at = np.flatnonzero(self.weights)
        table = pa.table({"feature": pa.array(at, pa.int32()), "weight": pa.array(self.weights[at], pa.float32())})
        about = {"intercept": self.intercept, "buckets": BUCKETS}
        pq.write_table(
            table.replace_schema_metadata({"headwater": json.dumps(about)}), folder / WEIGHTS, compression="zstd"
        )

    @classmethod
    def load(cls, folder: Path) -> LinearModel:
        """The model of a folder.

        Raises:
            UserError: no weights that can be read.
        """
        try:
            table = pq.read_table(folder / WEIGHTS)
            about = json.loads(table.schema.metadata[b"headwater"])
            weights = np.zeros(2 * about["buckets"], np.float32)
            weights[table["feature"].to_numpy()] = table["weight"].to_numpy()
            if about["buckets"] != BUCKETS:
                raise ValueError(f"{about['buckets']} buckets, not {BUCKETS}")
        except (OSError, ValueError, KeyError, TypeError, IndexError) as e:
            raise UserError(f"{folder / WEIGHTS}: no weights that can be read ({e})") from None
        return cls(weights, about["intercept"])
