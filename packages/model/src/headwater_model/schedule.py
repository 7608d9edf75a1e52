"""The learning rate as a pure function of how far a run is: nothing to save, nothing to load.

Progress counts the step about to be taken: 1 for the first (or its tokens), so that it has a learning rate above 0.
"""

from __future__ import annotations

import math

from .config import ScheduleConfig


def factor(schedule: ScheduleConfig, progress: float) -> float:
    """The learning rate as a fraction of its peak.

    Args:
        progress: steps or tokens, as `schedule.unit` says, this step's included; above 0.

    Sources: cosine without restarts, Loshchilov and Hutter, arXiv:1608.03983, equation 5; inverse_sqrt,
    Vaswani et al., arXiv:1706.03762, equation 3; wsd, Hu et al., arXiv:2404.06395, section 4, whose decay has the
    shape 1 - sqrt of Hägele et al., arXiv:2405.18392, section 3.2, or is linear.
    """
    if progress <= schedule.warmup:
        return progress / schedule.warmup
    floor, kind = schedule.floor, schedule.kind
    if kind == "constant":
        return 1.0
    if kind == "step":
        passed = sum(progress > milestone for milestone in schedule.milestones)
        return max(floor, schedule.factor**passed)
    if kind == "inverse_sqrt":
        return max(floor, math.sqrt(schedule.warmup / progress))
    done = min(1.0, (progress - schedule.warmup) / (schedule.steps - schedule.warmup))
    if kind == "exponential":
        return floor**done
    return floor + (1 - floor) * _remaining(schedule, done, progress)


def _remaining(schedule: ScheduleConfig, done: float, progress: float) -> float:
    """What is left of the way from the peak to the floor, 1 to 0, when the share `done` of the decay is."""
    if schedule.kind == "linear":
        return 1 - done
    if schedule.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    annealed = min(1.0, max(0.0, 1 - (schedule.steps - progress) / schedule.decay))
    return 1 - annealed if schedule.decay_shape == "linear" else 1 - math.sqrt(annealed)
