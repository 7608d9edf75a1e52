"""Stage `ppo`: reinforcement learning from the reward model (InstructGPT, arXiv:2203.02155, section 3.5 and C.4).

estimators.py, losses.py, controllers.py   the mathematics, as functions of tensors and masks
prompts.py, rollouts.py                    what is asked, what the policy answers
experience.py                              scores, KL, values, advantages of the answers
pretraining_rows.py                        text that PPO-ptx mixes in
update.py, guard.py                        steps of policy and value function; what is done when one goes wrong
course.py, checkpoints.py, stage.py        the run: step after step, whole or not there; what goes in and comes out
"""

from .controllers import adapt_kl_coef
from .estimators import explained_variance, gae, kl_estimate, masked_mean, token_rewards, whiten
from .losses import policy_losses, value_losses

__all__ = [
    "adapt_kl_coef",
    "explained_variance",
    "gae",
    "kl_estimate",
    "masked_mean",
    "policy_losses",
    "token_rewards",
    "value_losses",
    "whiten",
]
