import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pace import (
    ENOUGH,
    GAIN,
    LATEST,
    MOST_KEPT,
    RELOOK,
    Act,
    Figure,
    Pace,
    from_entry,
    knee,
    to_entry,
)

SECONDS = st.floats(0.001, 1000)


def passes(seconds: dict[int, float], times: int = ENOUGH) -> Pace:
    pace = Pace()
    for rows, taken in seconds.items():
        for _ in range(times):
            pace.note(Act.PASS, "m", taken, pixels=64, rows=rows)
    return pace


def test_nothing_is_known_before_it_was_measured():
    pace = passes({2: 1.0})

    assert pace.seconds(Act.LOAD, "m") is None
    assert pace.pass_seconds("m", 128, 2) is None
    assert pace.pass_seconds("other", 64, 2) is None
    assert pace.knee("m", 64) is None
    assert Pace().figures() == ()


@given(st.lists(SECONDS, min_size=1, max_size=40), st.integers(0, 6))
def test_a_few_odd_measurements_change_nothing_beyond_what_is_usual(usual, odd):
    pace = Pace()
    for seconds in usual[:LATEST] * LATEST:
        pace.note(Act.DECODE, "m", seconds, pixels=64)
    for _ in range(odd):
        pace.note(Act.DECODE, "m", 9999.0, pixels=64)

    assert min(usual) <= pace.seconds(Act.DECODE, "m", 64) <= max(usual[:LATEST])


def test_a_machine_that_has_become_slower_is_known_after_a_few_passes():
    pace = passes({2: 1.0}, times=500)
    for _ in range(LATEST // 2 + 1):
        pace.note(Act.PASS, "m", 3.0, pixels=64, rows=2)

    assert pace.pass_seconds("m", 64, 2) == 3.0


@given(st.dictionaries(st.integers(1, 16), SECONDS, min_size=1), st.floats(1, 32))
def test_between_two_measured_numbers_of_rows_lies_what_is_between_them(seconds, rows):
    pace = passes(seconds)

    found = pace.pass_seconds("m", 64, rows)

    below = [each for each in seconds if each <= rows]
    above = [each for each in seconds if each >= rows]
    if below and above:
        ends = (seconds[max(below)], seconds[min(above)])
        assert min(ends) - 1e-9 <= found <= max(ends) + 1e-9
    elif above:
        assert found == seconds[min(seconds)]
    else:
        assert found == pytest.approx(seconds[max(seconds)] * rows / max(seconds))


@given(st.dictionaries(st.integers(1, 32), SECONDS, min_size=2))
def test_more_rows_than_the_knee_draw_no_more_a_second_and_fewer_draw_less(seconds):
    found = knee(seconds)

    rate = {rows: rows / taken for rows, taken in seconds.items()}
    best = max(rate.values())
    last = max(seconds) if found is None else found
    assert rate[last] * (1 + GAIN) >= best * (1 - 1e-9)
    assert all(rate[rows] * (1 + GAIN) < best * (1 + 1e-9) for rows in seconds if rows < last)
    assert found is None or found < max(seconds)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({2: 1.0, 4: 1.0, 8: 1.0}, None),  # all is free so far: more may be, too
        ({2: 1.0, 4: 2.0, 8: 4.0}, 2),  # each row costs what the first did
        ({2: 1.0, 4: 1.0, 8: 2.0, 16: 4.0}, 4),
        ({2: 1.0, 8: 3.9}, 2),
        ({2: 1.0, 8: 2.0}, None),
        ({2: 1.0}, None),
        ({}, None),
    ],
)
def test_the_knee_is_where_more_rows_bring_no_more(seconds, expected):
    assert knee(seconds) == expected


def test_a_knee_is_concluded_from_enough_passes_alone():
    pace = passes({2: 1.0, 4: 2.0}, times=ENOUGH - 1)
    assert pace.most_rows("m", 64, 16) == 16

    for rows in (2, 4):
        pace.note(Act.PASS, "m", rows / 2, pixels=64, rows=rows)
    assert pace.most_rows("m", 64, 16) == 2


def test_a_cap_leaves_room_for_a_picture_and_never_lifts_a_ceiling():
    assert passes({1: 1.0, 2: 2.0}).most_rows("m", 64, 16) == 2
    assert passes({2: 1.0, 4: 1.0, 8: 1.0, 16: 2.0}).most_rows("m", 64, 4) == 4


def test_a_number_of_rows_that_seemed_too_many_gets_another_chance():
    pace = passes({4: 2.0, 2: 1.0})
    for _ in range(RELOOK):
        pace.note(Act.PASS, "m", 1.0, pixels=64, rows=2)

    assert pace.most_rows("m", 64, 16) == 16


def test_only_what_has_changed_notably_is_told():
    pace = passes({2: 1.0})
    assert [figure.rows for figure in pace.news()] == [2]
    pace.note(Act.PASS, "m", 1.0, pixels=64, rows=2)
    assert pace.news() == ()

    for _ in range(LATEST):
        pace.note(Act.PASS, "m", 1.2, pixels=64, rows=2)
    pace.note(Act.LOAD, "m", 5.0)
    assert {(figure.act, figure.seconds) for figure in pace.news()} == {
        (Act.PASS, 1.2),
        (Act.LOAD, 5.0),
    }


def test_it_is_told_once_when_enough_was_measured_to_conclude_from():
    pace = passes({2: 1.0}, times=1)
    pace.news()

    for _ in range(ENOUGH + 1):
        pace.note(Act.PASS, "m", 1.0, pixels=64, rows=2)

    assert [figure.count for figure in pace.news()] == [ENOUGH + 2]
    pace.note(Act.PASS, "m", 1.0, pixels=64, rows=2)
    assert pace.news() == ()


def test_what_another_process_tells_is_known_here():
    there, here = passes({2: 1.0, 4: 2.0}), Pace()

    here.take(there.news())

    assert here.pass_seconds("m", 64, 3) == 1.5
    assert here.knee("m", 64) == there.knee("m", 64) == 2
    assert here.news() == ()


def test_the_oldest_figures_go():
    pace = Pace()
    for number in range(MOST_KEPT + 1):
        pace.note(Act.PASS, f"m{number}", 1.0, pixels=64, rows=2)

    assert len(pace.figures()) == MOST_KEPT
    assert pace.pass_seconds("m0", 64, 2) is None


@given(
    st.builds(
        Figure,
        st.sampled_from(Act),
        st.text(),
        st.floats(0, 86_400),
        st.integers(1, LATEST),
        st.integers(0, 10**9),
        st.integers(1, 64),
    )
)
def test_a_figure_survives_the_file(figure):
    name, value = to_entry(figure)

    assert from_entry(name, json.loads(json.dumps(value))) == figure


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.text() | st.just("pass 64 2 m") | st.just("pass 64 0 m"), JSON)
def test_what_is_no_figure_is_none(name, value):
    figure = from_entry(name, value)

    if figure is not None:
        assert 0 <= figure.seconds <= 86_400
        Pace([figure]).knee(figure.model, figure.pixels)
        Pace([figure]).pass_seconds(figure.model, figure.pixels, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pass 64 2", [1.0, 1]),
        ("nap 64 2 m", [1.0, 1]),
        ("pass 64 0 m", [1.0, 1]),
        ("pass -1 2 m", [1.0, 1]),
        ("pass 99999999999999 2 m", [1.0, 1]),
        ("pass 64 2 m", [float("nan"), 1]),
        ("pass 64 2 m", [-1.0, 1]),
        ("pass 64 2 m", [1e9, 1]),
        ("pass 64 2 m", [10**400, 1]),
        ("pass 64 2 m", [1.0, 0]),
        ("pass 64 2 m", [1.0, True]),
        ("pass 64 2 m", ["1", 1]),
        ("pass 64 2 m", {"seconds": 1}),
    ],
)
def test_hostile_entries_are_passed_over(name, value):
    assert from_entry(name, value) is None
