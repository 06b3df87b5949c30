import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.step_batcher import LEAST_CAP, Waiting, choose_batch

ROWS = st.integers(1, LEAST_CAP)
CROWDS = st.lists(
    st.builds(
        Waiting,
        key=st.sampled_from("abc"),
        owner=st.integers(0, 4),
        rows=ROWS,
        since=st.integers(0, 9),
    ),
    max_size=25,
)
CAPS = st.integers(LEAST_CAP, 20)


def test_nobody_waiting_makes_no_batch() -> None:
    assert choose_batch([], lambda _: 8) == []


def test_those_with_the_same_key_share_a_pass_in_the_order_of_arrival() -> None:
    waiting = [Waiting("a", 1, 2, 0), Waiting("b", 2, 2, 0), Waiting("a", 3, 1, 0)]

    assert choose_batch(waiting, lambda _: 8) == [0, 2]


def test_the_group_of_whoever_waited_longest_goes_next() -> None:
    waiting = [Waiting("a", 1, 2, 5), Waiting("a", 2, 2, 4), Waiting("b", 3, 2, 3)]

    assert choose_batch(waiting, lambda _: 8) == [2]


def test_a_smaller_one_takes_the_room_that_a_larger_one_leaves() -> None:
    waiting = [Waiting("a", 1, 2, 0), Waiting("a", 2, 2, 1), Waiting("a", 3, 1, 2)]

    assert choose_batch(waiting, lambda _: 3) == [0, 2]


def test_a_request_with_many_pictures_leaves_room_for_the_others() -> None:
    crowd = [Waiting("a", "many", 2, 0)] * 8 + [Waiting("a", "one", 2, 0)]

    assert choose_batch(crowd, lambda _: 4) == [0, 8]


def test_a_cap_without_room_for_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="cap is 1 rows; a picture takes 2"):
        choose_batch([Waiting("a", 1, 1, 0)], lambda _: 1)


@given(CROWDS, CAPS)
def test_a_batch_has_one_key_fits_its_cap_and_names_nobody_twice(
    waiting: list[Waiting], cap: int
) -> None:
    chosen = choose_batch(waiting, lambda _: cap)

    assert len(set(chosen)) == len(chosen)
    assert len({waiting[i].key for i in chosen}) == (1 if waiting else 0)
    assert sum(waiting[i].rows for i in chosen) <= cap


@given(CROWDS, CAPS)
def test_no_room_is_left_that_somebody_of_the_group_would_fit_into(
    waiting: list[Waiting], cap: int
) -> None:
    chosen = choose_batch(waiting, lambda _: cap)

    room = cap - sum(waiting[i].rows for i in chosen)
    keys = {waiting[i].key for i in chosen}
    left = [w for i, w in enumerate(waiting) if i not in chosen and w.key in keys]
    assert all(w.rows > room for w in left)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), ROWS), min_size=1, max_size=12),
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(4, 6), ROWS), max_size=2),
        max_size=40,
    ),
    CAPS,
)
def test_everybody_moves_within_as_many_passes_as_there_were_pictures(
    first: list[tuple[str, int, int]],
    arrivals: list[list[tuple[str, int, int]]],
    cap: int,
) -> None:
    crowd = [Waiting(key, owner, rows, 0) for key, owner, rows in first]
    bound = [len(crowd)] * len(crowd)

    for number, newcomers in enumerate([*arrivals, *[[]] * len(first)], start=1):
        # In the host's order: join, then step.
        for key, owner, rows in newcomers:
            crowd.append(Waiting(key, owner, rows, number - 1))
            bound.append(len(crowd))
        for i in choose_batch(crowd, lambda _: cap):
            crowd[i] = Waiting(crowd[i].key, crowd[i].owner, crowd[i].rows, number)
            bound[i] = len(crowd)
        assert all(number - w.since < b for w, b in zip(crowd, bound, strict=True))
