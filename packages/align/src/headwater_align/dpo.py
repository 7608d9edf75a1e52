"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290): its loss, as a function of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpo_losses(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid(beta h) of each pair (eq. 7), h = log(policy/reference) of the chosen less that of the rejected.

    Args:
        policy_chosen, policy_rejected, reference_chosen, reference_rejected: float [B], log-probability of the whole
            answer given its prompt: the sum over its tokens, in nats.
        beta: strength of the tie to the reference.
        label_smoothing: e in [0, 0.5), the share of labels taken to be wrong: -(1 - e) log sigmoid(beta h) -
            e log sigmoid(-beta h) (conservative DPO, Mitchell 2023, "A note on DPO with noisy preferences").

    Returns:
        float [B].
    """
    logits = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)
