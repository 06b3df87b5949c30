"""How many rows a forward pass is filled up to, for the modes that ask for it. Pure.

Matrix products of other shapes may round otherwise in the last bit, and code is compiled for one
shape at a time. So `exact` modes make all their passes with one number of rows, and `compile` modes
with few different ones: what is lacking are copies of a row that nobody looks at.
"""

from collections.abc import Mapping

EXACT_ROWS: Mapping[str, int] = {"cpu": 4, "cuda": 8}
"""Rows of every pass of an exact mode, by kind of device: more shares better, fewer wastes less on
who draws alone."""


def filled_up(rows: int, device: str, most: int, *, exact: bool, compiled: bool) -> int:
    """Returns the rows that a pass has.

    Args:
        rows: those that are drawn.
        device: such as ``cpu`` or ``cuda:0``.
        most: of a pass on this device, whatever is asked.
        exact: whether a picture must not depend on its company.
        compiled: whether it is drawn with compiled code.
    """
    if exact:
        return max(rows, exact_rows(device, most))
    if compiled:
        return max(rows, min(most, 1 << max(1, (rows - 1).bit_length())))
    return rows


def buckets(most: int) -> tuple[int, ...]:
    """Returns the rows that compiled passes have, the fewest first.

    Args:
        most: as in `filled_up`.
    """
    return tuple(sorted({min(most, 1 << power) for power in range(1, most.bit_length() + 1)}))


def exact_rows(device: str, most: int) -> int:
    """Returns the rows of every pass of an exact mode; arguments as in `filled_up`."""
    return min(most, EXACT_ROWS[device.partition(":")[0]])
