"""(Pure) whose turns count more: roles, and the weights that the owner gives them."""

from collections.abc import Mapping

from bot.records import Owner

LEAST, MOST = 0.1, 10.0
"""Weights that may be given; 1 is a member's without any."""

ALLOWED = (
    "roles by name or id with a number from 0.1 to 10 each, such as Boosters=2, "
    "80351110224678912=1.5"
)


def parse_weights(text: str) -> dict[str, float]:
    """Returns the weights that a setting gives, by role.

    Raises:
        ValueError: it is something else than `ALLOWED`, or names a role twice; the text says which.
    """
    weights: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        role, separator, number = (part.strip() for part in entry.rpartition("="))
        if not separator or not role or not role.isprintable() or len(role) > 100:
            raise ValueError(f"{entry[:40]!r} is no role with a weight")
        try:
            weight = float(number)
        except ValueError:
            raise ValueError(f"{number[:40]!r} is no number") from None
        if not LEAST <= weight <= MOST:
            raise ValueError(f"{number[:40]} is no weight from {LEAST} to {MOST:g}")
        if role in weights:
            raise ValueError(f"{role[:40]!r} stands there twice")
        weights[role] = weight
    return weights


def weight_of(owner: Owner, weights: Mapping[str, float]) -> float:
    """Returns what somebody's turns count: the best of their roles', 1 without any of them."""
    return max((weights[role] for role in owner.roles if role in weights), default=1.0)
