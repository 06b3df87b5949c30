from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.expectation import STEADY_SECONDS, STEADY_SHARE, expected_at, seconds_text

NOW = datetime(2026, 5, 4, tzinfo=UTC)
SECONDS = st.floats(0, 1e6)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@given(st.none() | st.floats(-1e6, 1e6).map(later))
def test_nothing_is_told_where_nothing_is_known(told):
    assert expected_at(told, None, NOW) is None


@given(SECONDS)
def test_the_first_moment_is_told_as_it_is(seconds):
    assert expected_at(None, seconds, NOW) == later(seconds)


@given(SECONDS, SECONDS)
def test_a_moment_stays_unless_it_is_notably_off(before, seconds):
    told = later(before)

    found = expected_at(told, seconds, NOW)

    off = abs((found - later(seconds)).total_seconds())
    assert off <= max(STEADY_SECONDS, STEADY_SHARE * seconds) + 1e-3
    assert found in (told, later(seconds))


def test_small_changes_are_not_told_and_large_ones_are():
    assert expected_at(later(10), 12.9, NOW) == later(10)
    assert expected_at(later(10), 13.1, NOW) == later(13.1)
    assert expected_at(later(100), 120, NOW) == later(100)
    assert expected_at(later(100), 130, NOW) == later(130)


def test_a_moment_that_has_passed_is_told_no_more():
    assert expected_at(later(-1), 0.5, NOW) == later(0.5)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "about 1 s"),
        (0.2, "about 1 s"),
        (12.4, "about 12 s"),
        (99.4, "about 99 s"),
        (150, "about 2 min"),
        (5000, "about 83 min"),
        (7300, "about 2 h"),
    ],
)
def test_time_is_told_in_round_numbers(seconds, words):
    assert seconds_text(later(seconds), NOW) == words
