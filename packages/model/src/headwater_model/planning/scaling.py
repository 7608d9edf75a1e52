"""Compute-optimal model size and tokens: four published answers beside each other.

Chinchilla (Hoffmann et al. 2022, arXiv:2203.15556) has three: approach 1 (minimum over training curves; the paper's
table 3), approach 2 (isoFLOP profiles) and approach 3 (a parametric loss); the latter two are its table A3. Kaplan et
al. 2020 (arXiv:2001.08361) is the older one. Approach 3 was refitted by Besiroglu et al. 2024 (arXiv:2404.10102).

C = 6 N D throughout: the table's FLOPs are 6 N D to its printed digits (eight of nine rows of table 3 within 1%), not
the count of the paper's appendix F (`appendix_f_flops`), which differs by up to 10% for small models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .shapes import Shape

PF_DAY = 1e15 * 86_400
"""FLOPs of a petaflop/s-day, Kaplan's unit."""


class Allocation(NamedTuple):
    """How a budget is spent."""

    parameters: float
    tokens: float

    @property
    def flops(self) -> float:
        """6 N D."""
        return 6 * self.parameters * self.tokens


class Law(Protocol):
    """Anything that says which N and D belong together."""

    @property
    def name(self) -> str:
        """By which it is asked for."""
        ...

    @property
    def source(self) -> str:
        """Paper and table."""
        ...

    def optimum(self, flops: float) -> Allocation:
        """N and D with 6 N D = flops."""
        ...

    def tokens_for(self, parameters: float) -> float:
        """The tokens for which a model of this size is the optimal one."""
        ...

    def parameters_for(self, tokens: float) -> float:
        """The model size for which these tokens are the optimal ones."""
        ...


@dataclass(frozen=True)
class Frontier:
    """D = tokens_at_1b x (N / 1e9) ^ exponent: what approaches 1 and 2 and Kaplan come to.

    N then grows as C ^ (1 / (1 + exponent)), D as C ^ (exponent / (1 + exponent)).
    """

    name: str
    source: str
    tokens_at_1b: float
    exponent: float

    def tokens_for(self, parameters: float) -> float:
        """See `Law`."""
        return self.tokens_at_1b * (parameters / 1e9) ** self.exponent

    def parameters_for(self, tokens: float) -> float:
        """See `Law`."""
        return 1e9 * (tokens / self.tokens_at_1b) ** (1 / self.exponent)

    def optimum(self, flops: float) -> Allocation:
        """See `Law`."""
        parameters = 1e9 * (flops / (6e9 * self.tokens_at_1b)) ** (1 / (1 + self.exponent))
        return Allocation(parameters, flops / 6 / parameters)


@dataclass(frozen=True)
class Parametric:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats a token of the fit's own tokenizer and data."""

    name: str
    source: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Equation 2 of arXiv:2203.15556; an extrapolation below some ten million parameters."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> Allocation:
        """Equation 4: the minimum of the loss on 6 N D = flops."""
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = scale * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return Allocation(parameters, flops / 6 / parameters)

    def tokens_for(self, parameters: float) -> float:
        """Where alpha A / N^alpha = beta B / D^beta: the next FLOP is worth the same in either."""
        return (self.beta * self.B * parameters**self.alpha / (self.alpha * self.A)) ** (1 / self.beta)

    def parameters_for(self, tokens: float) -> float:
        """The inverse of `tokens_for`."""
        return (self.alpha * self.A * tokens**self.beta / (self.beta * self.B)) ** (1 / self.alpha)

    def tokens_to_reach(self, loss: float, parameters: float) -> float:
        """Tokens with which a model of this size has this loss; infinite where it never has."""
        left = loss - self.E - self.A / parameters**self.alpha
        return (self.B / left) ** (1 / self.beta) if left > 0 else float("inf")

    def flops_to_reach(self, loss: float) -> float:
        """The least FLOPs, 6 N D, that reach this loss; infinite at the irreducible loss and below.

        On the frontier L - E = (1 + alpha / beta) A / N^alpha, since both terms' slopes are equal there.
        """
        if loss <= self.E:
            return float("inf")
        parameters = ((1 + self.alpha / self.beta) * self.A / (loss - self.E)) ** (1 / self.alpha)
        return 6 * parameters * self.tokens_for(parameters)


# The paper prints exponents of two digits (0.50 and 0.50, 0.49 and 0.51, 0.46 and 0.54), which do not give back its own
# tables. These are least squares in logarithms on the tables' FLOPs: exponents 0.498, 0.490 and 0.459. Left out are the
# 67B rows, which lie 3% (table 3) to 9% off the line of the other eight, and contradict themselves in table 3
# (6 x 67e9 x 1.5e12 = 6.03e23, printed 5.76e23), and approach 3's 175B, whose FLOPs lack a power of ten (1.26e24).
CHINCHILLA_1 = Frontier("chinchilla-1", "arXiv:2203.15556, table 3", 2.01453e10, 1.007663)
CHINCHILLA_2 = Frontier("chinchilla-2", "arXiv:2203.15556, table A3", 1.99601e10, 1.041119)
CHINCHILLA_3_TABLE = Frontier("chinchilla-3-table", "arXiv:2203.15556, table A3", 2.70837e10, 1.180371)
# Equation 10 prints 0.34, 0.28, 1.69; the paper's TeX source has these digits (quoted in table 1 of arXiv:2404.10102).
# They give the paper's own 40B for Gopher's budget (figure 4); the printed ones give 32B.
CHINCHILLA_3 = Parametric("chinchilla-3", "arXiv:2203.15556, equation 10", 1.6934, 406.4, 410.7, 0.3392, 0.2849)
CHINCHILLA_3_PRINTED = Parametric("chinchilla-3-printed", "arXiv:2203.15556, equation 10 as printed",
                                  1.69, 406.4, 410.7, 0.34, 0.28)  # fmt: skip
BESIROGLU = Parametric("besiroglu", "arXiv:2404.10102, table 1", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)
# Table 3 of arXiv:2001.08361: N = 1.3e9 Cmin^0.73, Cmin in PF-days at a batch far below the critical one. Training at
# the critical batch costs C = 2 Cmin; so read, the law gives the 4.68B at 1e21 FLOPs that arXiv:2203.15556 (section
# D.4) says it gives. N counts no embeddings.
_KAPLAN_AT = Allocation(1.3e9, 2 * PF_DAY / 6 / 1.3e9)
KAPLAN = Frontier("kaplan", "arXiv:2001.08361, section 6.1 and appendix A",
                  _KAPLAN_AT.tokens * (1e9 / 1.3e9) ** (0.27 / 0.73), 0.27 / 0.73)  # fmt: skip

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        CHINCHILLA_1,
        CHINCHILLA_2,
        CHINCHILLA_3,
        CHINCHILLA_3_TABLE,
        CHINCHILLA_3_PRINTED,
        BESIROGLU,
        KAPLAN,
    )  # fmt: skip
}
SHOWN = ("chinchilla-1", "chinchilla-2", "chinchilla-3", "besiroglu", "kaplan")
"""The laws that a plan shows beside each other."""
PARAMETRIC: dict[str, Parametric] = {name: law for name, law in LAWS.items() if isinstance(law, Parametric)}


def by_ratio(flops: float, tokens_per_parameter: float = 20.0) -> Allocation:
    """N and D = ratio x N with 6 N D = flops: Chinchilla's rule of thumb."""
    parameters = (flops / (6 * tokens_per_parameter)) ** 0.5
    return Allocation(parameters, tokens_per_parameter * parameters)


def limited_by_data(flops: float, wanted: Allocation, available: float, max_epochs: float) -> Allocation:
    """`wanted`, unless it needs more than `max_epochs` passes: then a larger model on what there is.

    Up to four passes are nearly as good as new tokens (Muennighoff et al., arXiv:2305.16264). The larger
    model spends the same budget.
    """
    most = available * max_epochs
    return wanted if wanted.tokens <= most else Allocation(flops / 6 / most, most)


def appendix_f_flops(shape: Shape, key_width: int, vocabulary: bool = True) -> float:
    """Training FLOPs a token as arXiv:2203.15556 counts them in its appendix F: embeddings, softmax and full scores.

    Args:
        key_width: channels of one head.
        vocabulary: count the embeddings and the logits, as the appendix says; its table A4 is met without them.
    """
    s, h, inner = shape.context, shape.hidden, key_width * shape.heads
    attention = 2 * 3 * s * h * inner + 2 * s * inner * h  # projections
    attention += 2 * 2 * s * s * inner + 3 * shape.heads * s * s  # scores, weighted sum, softmax
    forward = shape.layers * (attention + 2 * s * 2 * h * shape.ffn_width)
    forward += 2 * 2 * s * shape.vocab * h if vocabulary else 0
    return 3 * forward / s
