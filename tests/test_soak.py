"""What counts as grown; the soak itself takes minutes and is a command: `tests.soak`."""

import pytest

from tests.soak import MIB, Curve, Report, early_and_late


def report(memory: list[int], files: list[int]) -> Report:
    return Report(curves={"bot": Curve(memory, files, [1] * len(files))})


def test_what_grows_in_the_beginning_alone_is_no_leak() -> None:
    memory = [60 * MIB] * 10 + [100 * MIB] * 20
    assert report(memory, [5] * 10 + [20] * 20).grown == []


@pytest.mark.parametrize(
    ("memory", "files", "named"),
    [
        ([n * MIB for n in range(100, 130)], [20] * 30, "memory grew from 114 to 124 MiB"),
        ([100 * MIB] * 30, list(range(30)), "open files grew from 14 to 24"),
    ],
)
def test_what_grows_until_the_end_is_named(memory: list[int], files: list[int], named: str) -> None:
    [wrong] = report(memory, files).grown
    assert named in wrong


def test_a_few_looks_say_nothing() -> None:
    assert early_and_late([1, 2]) == (0, 0)
