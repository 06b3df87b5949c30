"""Sizes by aspect: what a name or a ratio means, and what is near to a size that is not allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modes.aspect import read_aspect, within
from modes.request_fields import SIDE_STEP

SIDES = st.integers(1, 99_999)
BOUNDS = st.tuples(st.integers(1, 64), st.integers(64, 256)).map(
    lambda pair: (pair[0] * SIDE_STEP, pair[1] * SIDE_STEP)
)


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("square", 1),
        ("Portrait", 2 / 3),
        (" landscape ", 3 / 2),
        ("16:9", 16 / 9),
        ("9 / 16", 9 / 16),
        ("1.91:1", 1.91),
    ],
)
def test_an_aspect_is_read_as_people_write_it(text: str, ratio: float) -> None:
    aspect = read_aspect(text)

    assert aspect is not None
    assert aspect[0] / aspect[1] == pytest.approx(ratio)


@given(st.text(max_size=30))
def test_whatever_is_typed_is_an_aspect_of_two_whole_numbers_or_none(text: str) -> None:
    aspect = read_aspect(text)

    assert aspect is None or (len(aspect) == 2 and min(aspect) > 0)


@pytest.mark.parametrize("text", ["", "0:1", "1:0", "16:9:1", "a:b", "-1:2", "512x768", "\u0661:2"])
def test_what_is_no_aspect_is_none(text: str) -> None:
    assert read_aspect(text) is None


@given(SIDES, SIDES, BOUNDS)
def test_a_size_that_is_brought_within_bounds_is_within_them_and_stays(
    width: int, height: int, bounds: tuple[int, int]
) -> None:
    size = within((width, height), bounds)

    assert all(bounds[0] <= side <= bounds[1] and side % SIDE_STEP == 0 for side in size)
    assert within(size, bounds) == size
    assert (size[0] - size[1]) * (width - height) >= 0


def test_too_large_a_size_keeps_its_aspect_where_it_can() -> None:
    assert within((4096, 2048), (256, 1024)) == (1024, 512)
    assert within((100, 50), (64, 1024)) == (128, 64)
    assert within((65, 128), (64, 128)) == (64, 128)
