import pickle

import pytest

from engine.errors import (
    DreamLabError,
    JobCancelledError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    PoolClosedError,
    QueueFullError,
    RequestError,
    UnknownModeError,
    WorkerDiedError,
)

EXAMPLES = [
    RequestError("steps", 0, "1 to 100"),
    UnknownModeError("nope", ("a", "b")),
    QueueFullError(64),
    ModelNotFoundError("models/x"),
    NotEnoughMemoryError("models/x", 2**31, 2**30, 2**32),
    WorkerDiedError("cuda:0", "was killed"),
    JobCancelledError("id"),
    PoolClosedError(),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_crosses_a_process_boundary_with_its_facts(error: DreamLabError) -> None:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 # our own

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", "nothing"),
        (None, "nothing"),
        ("a\x1b[2Jb", "'a\N{REPLACEMENT CHARACTER}[2Jb'"),
        ("x" * 5000, "'" + "x" * 80 + "'…"),
        (10**5000, "so long a number"),
        (-(10**5000), "so long a number"),
        (float("nan"), "'nan'"),
    ],
    ids=["empty", "none", "control characters", "long", "huge", "huge negative", "nan"],
)
def test_hostile_values_are_shown_short_and_harmless(value: object, shown: str) -> None:
    assert f"field: {shown} is not allowed" in str(RequestError("field", value, "better ones"))
