"""How many rows each task and source gives: examples-proportional mixing with a cap, or stated rates.

T5 (arXiv:1910.10683, section 3.5.2): with e_n examples of task n and a limit K, task m has the share
min(e_m, K) / sum_n min(e_n, K). FLAN takes K = 30,000. The Flan Collection gives its suites fixed rates (4:3:1:1:1) and
mixes by size within each.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from .._contracts.errors import UsageError
from .config import Mixture


def shares(sizes: Mapping[str, int], mixture: Mixture) -> dict[str, Fraction]:
    """The share that each member is to have; they add up to 1.

    Args:
        sizes: training examples of each member; a member without any has no share.

    Raises:
        UsageError: rates or suites leave a member out, or name one that takes no part.
    """
    if mixture.suites:
        of = {name: suite for suite in mixture.suites.values() for name in suite.members}
        _same(of, sizes, "mixture.suites")
        groups = [
            (suite.rate, {name: min(sizes[name], suite.cap or mixture.cap) for name in suite.members})
            for suite in mixture.suites.values()
        ]
    elif mixture.rates:
        _same(mixture.rates, sizes, "mixture.rates")
        groups = [(rate, {name: min(sizes[name], 1)}) for name, rate in mixture.rates.items()]
    else:
        groups = [(1.0, {name: min(size, mixture.cap) for name, size in sizes.items()})]
    groups = [(rate, members) for rate, members in groups if sum(members.values())]
    whole = sum(Fraction(rate) for rate, _ in groups)
    return {
        name: Fraction(rate) / whole * Fraction(weight, sum(members.values()))
        for rate, members in groups
        for name, weight in members.items()
    }


def allocate(sizes: Mapping[str, int], mixture: Mixture) -> tuple[dict[str, int], dict[str, int]]:
    """(rows wanted, rows given) of each member.

    Wanted is the share of the total, in whole rows by largest remainder. Without a total it is the largest for which no
    member is asked for more than its rows times `max_epochs`; a stated total is not cut, so a member may want more rows
    than it can give, and then gives what it has.
    """
    share = shares(sizes, mixture)
    most = {name: int(Fraction(sizes[name]) * Fraction(mixture.max_epochs)) for name in share}
    reachable = [Fraction(most[name]) / part for name, part in share.items() if part]
    total = Fraction(mixture.total) or Fraction(int(min(reachable, default=Fraction(0))))
    exact = {name: total * part for name, part in share.items()}
    wanted = {name: int(rows) for name, rows in exact.items()}
    left = int(total) - sum(wanted.values())
    for name in sorted(exact, key=lambda name: (wanted[name] - exact[name], name))[:left]:
        wanted[name] += 1
    return wanted, {name: min(rows, most[name]) for name, rows in wanted.items()}


def _same(named: Mapping[str, object], sizes: Mapping[str, int], where: str) -> None:
    if missing := sorted(set(sizes) - set(named)):
        raise UsageError(f"instructions.{where}: {missing[0]} has no rate; give every task and source one")
    if unknown := sorted(set(named) - set(sizes)):
        raise UsageError(f"instructions.{where}: {unknown[0]} takes no part; there are {', '.join(sorted(sizes))}")
