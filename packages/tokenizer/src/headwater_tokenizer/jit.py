"""numba's `njit` without reference counts, for loops that are made of many small functions.

numba counts references to every array in atomic steps, at each helper that is inlined; in the loops that encode, this
took two thirds of the time. Its option `_nrt` switches that off for functions that allocate no array.
"""

from __future__ import annotations

from typing import Any

import numba

_njit: Any = numba.njit  # its type stubs lack the option


def uncounted(**options: bool) -> Any:
    """Decorator of a function that allocates nothing; `options` are njit's."""
    return _njit(_nrt=False, **options)


def counted(**options: bool) -> Any:
    """Decorator of a function that allocates and is called by an uncounted one, whose option it would take over."""
    return _njit(_nrt=True, **options)
