"""The sorted list with widths, against a plain sorted list."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.summed_list import SummedList

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CHANGES = st.lists(
    st.tuples(st.sampled_from([True, True, False]), st.integers(0, 30), st.integers(1, 9)),
    max_size=80,
)


@untimed
@given(CHANGES, st.integers(0, 200))
def test_it_knows_of_every_entry_and_position_what_a_plain_list_knows(changes, position):
    summed: SummedList[tuple[int]] = SummedList(most=3)  # so that blocks split and go
    plain: dict[tuple[int], int] = {}
    for adds, number, width in changes:
        key = (number,)
        if adds and key not in plain:
            summed.add(key, width)
            plain[key] = width
        elif not adds and key in plain:
            summed.remove(key)
            del plain[key]
        spans, begin = [], 0
        for each in sorted(plain):
            spans.append((each, begin))
            begin += plain[each]
        assert len(summed) == len(plain)
        assert list(summed) == sorted(plain)
        assert list(summed.spans()) == spans
        assert [summed.locate(each) for each, _ in spans] == [
            (rank, begins) for rank, (_, begins) in enumerate(spans)
        ]
        before = sum(begins < position for _, begins in spans)
        there = [each for each, begins in spans if begins == position]
        assert summed.begun(position) == (before, there[0] if there else None)


def test_what_lies_behind_a_removed_one_moves_up():
    summed: SummedList[tuple[int]] = SummedList(most=3)
    for number in range(20):
        summed.add((number,), number + 1)
    assert summed.locate((19,)) == (19, 190)
    summed.remove((1,))
    assert summed.locate((19,)) == (18, 188)
    for number in (0, 2):  # the rest of a block
        summed.remove((number,))
    assert summed.locate((19,)) == (16, 184)
    assert summed.begun(183) == (16, None)
    assert summed.begun(184) == (16, (19,))
    assert summed.begun(204) == (17, None)


def test_what_is_not_here_is_refused():
    summed: SummedList[tuple[int]] = SummedList()
    with pytest.raises(IndexError):
        summed.first()
    summed.add((1,))
    for absent in ((0,), (2,)):
        with pytest.raises(KeyError):
            summed.remove(absent)
        with pytest.raises(KeyError):
            summed.locate(absent)
    assert summed.first() == (1,)
