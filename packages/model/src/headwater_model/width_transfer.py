"""Width transfer (muP): the best learning rate of a narrow model is the best one of a wide model.

Yang et al., "Tensor Programs V", arXiv:2203.03466. Of its equivalent forms this is table 3, which needs no multiplier
in the forward pass, so a model is exported as any other: what changes with the width is how weights are drawn and
how far a step moves them. With m = hidden / base:

                           drawn, x      adamw, lion    adafactor     muon          sgd
  input tables, vectors    1             1              1             1 (adamw)     m
  hidden matrices          1/sqrt(m)     1/m            1/sqrt(m)     1/sqrt(m)     1
  output matrix            1/m           1/m            1             1/m (adamw)   1/m

Hidden matrices are drawn with std 1/sqrt(fan in) anyhow. Where input and output share a table, it is treated as an
input, and the 1/m of the output goes into the gain of the last norm instead (the multiplier of the paper's table 8,
folded into a weight that is there already): that is the row "output matrix" then. Adafactor's step is relative to
the size of the weight (Shazeer and Stern, arXiv:1804.04235, section 8), Muon's has the same root mean square at
every width where its spectral norm should stay (Yang, Simon and Bernstein, arXiv:2310.17813, condition 1): hence
their roots. Weight decay is divided by the same factor, so that a step takes the same share of a weight at every
width, as the authors' package does (mup.MuAdamW).

A head's width must be the same in the narrow and the wide model: a wide one has more heads. Then 1/sqrt(head width)
in the attention is a constant, and muP's 1/(head width) asks for nothing.
"""

from __future__ import annotations

from typing import Literal

import headwater_model.cpu as cpu  # noqa: F401

import torch
from torch import Tensor, nn

from ._contracts.errors import UserError
from .config import ModelConfig
from .training_config import WidthTransferConfig

Role = Literal["input", "hidden", "output"]

EXPONENTS: dict[str, dict[Role, float]] = {
    "adamw": {"input": 0.0, "hidden": -1.0, "output": -1.0},
    "lion": {"input": 0.0, "hidden": -1.0, "output": -1.0},
    "adafactor": {"input": 0.0, "hidden": -0.5, "output": 0.0},
    "muon": {"hidden": -0.5},
    "sgd": {"input": 1.0, "hidden": 0.0, "output": -1.0},
}
"""The learning rate grows with the width to this power."""


def role(name: str, weight: Tensor, tied: bool) -> Role:
    """What a weight is to the width.

    Args:
        name: as `named_parameters` has it.
        tied: the output uses the input table.
    """
    if tied and "decoder.final_layernorm" in name:
        return "output"
    if weight.dim() < 2 or is_table(name, tied):
        return "input"
    return "output" if "output_layer" in name else "hidden"


def is_table(name: str, tied: bool) -> bool:
    """Whether a weight is a table that ids choose from: of tokens (a last pipeline stage's copy too), their types,
    positions, or T5's distances."""
    return "embedding" in name or "relative_attention_bias" in name or (tied and "output_layer" in name)


def lr_scale(kind: str, role: Role, hidden: int, base: int) -> float:
    """What the learning rate of a weight is multiplied with.

    Args:
        kind: of the optimiser that drives this very weight ("adamw" for what Muon leaves over).
        hidden, base: width of this model, and of the one whose learning rate is given.
    """
    return (hidden / base) ** EXPONENTS[kind][role]


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig, transfer: WidthTransferConfig) -> None:
    """Make a freshly drawn model one of width transfer: its output matrix (tied: last gain) x output x base / hidden.

    Args:
        model: as `gpt.build` gives it, this rank's part, before its `Trainer` copies the weights.

    Raises:
        UserError: hidden matrices are not drawn by their fan in, or the model is no decoder.
    """
    if config.kind not in ("decoder", "prefix"):
        raise UserError(f"optimizer.width_transfer is known for decoders, not for kind {config.kind}: leave it out")
    if config.init != "fan_in":
        raise UserError(f"optimizer.width_transfer needs init fan_in, which depends on the width, not {config.init}")
    tied = is_tied(model)
    for name, weight in model.named_parameters():
        if role(name, weight, tied) == "output":
            weight.mul_(transfer.output * transfer.base / config.hidden)


def is_tied(model: nn.Module) -> bool:
    """Whether the output uses the input table."""
    return any(getattr(part, "share_embeddings_and_output_weights", False) for part in model.modules())
