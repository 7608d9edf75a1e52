"""A run of the stage `ppo` in a process of its own that dies, as by SIGKILL, at a named place.

python ppo_kills.py PLACE TIMES ARGUMENTS      PLACE: answers, value or step; the process dies there the n-th time
"""

import os
import sys

from headwater_align.cli import main
from headwater_align.engine import Trainer
from headwater_align.ppo import course

KILLED = 137


def die_before(owner: object, name: str, times: int, when=lambda *given: True) -> None:
    real = getattr(owner, name)
    left = [times]

    def dying(*given, **more):
        left[0] -= when(*given)
        if left[0] < 0:
            os._exit(KILLED)
        return real(*given, **more)

    setattr(owner, name, dying)


if __name__ == "__main__":
    place, times, *arguments = sys.argv[1:]
    if place == "answers":  # they are on the disk, nothing was learnt from them
        die_before(course, "evaluate_episodes", int(times))
    if place == "value":  # the value function has made its update, the policy has not
        die_before(Trainer, "step", int(times), lambda trainer, *rest: trainer.module.head == "lm")
    if place == "step":
        die_before(course.Course, "_step", int(times))
    sys.exit(main(arguments))
