"""The step batcher: whose rows share the next forward pass."""

from collections import Counter
from collections.abc import Hashable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.step_batcher import LEAST_CAP, MOST_PASSES, StepBatcher

# A busy machine decides nothing here.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIZES = {"small": 16, "middle": 100, "large": 256, "huge": 4096}
KEYS = st.sampled_from(sorted(SIZES))
ROWS = st.integers(1, LEAST_CAP)
CAPS = st.integers(LEAST_CAP, 20)
# (key, request, rows, steps to make)
CROWDS = st.lists(st.tuples(KEYS, st.integers(0, 4), ROWS, st.integers(1, 6)), max_size=25)


def joined(*crowd: tuple[str, int, int]) -> StepBatcher[int, str]:
    """Pictures are named by their numbers; those of one key are of one size."""
    batcher: StepBatcher[int, str] = StepBatcher()
    for number, (key, owner, rows) in enumerate(crowd):
        batcher.join(number, key, owner, rows, SIZES.get(key, 1))
    return batcher


def cap(rows: int):
    return lambda key: rows


def test_nobody_here_makes_no_batch() -> None:
    assert StepBatcher().next_batch(cap(8)) == []


def test_those_with_the_same_key_share_a_pass_first_come_first() -> None:
    batcher = joined(("a", 1, 2), ("b", 2, 2), ("a", 3, 1))

    assert batcher.next_batch(cap(8)) == [0, 2]
    assert batcher.next_batch(cap(8)) == [1]
    assert batcher.next_batch(cap(8)) == [0, 2]


def test_above_the_cap_the_first_go_on_until_they_are_done() -> None:
    batcher = joined(*[("a", owner, 2) for owner in range(4)])

    assert [batcher.next_batch(cap(4)) for _ in range(3)] == [[0, 1]] * 3
    assert batcher.leave(0)
    assert batcher.next_batch(cap(4)) == [1, 2]


def test_the_cap_is_asked_for_by_key() -> None:
    batcher = joined(("a", 0, 2), ("a", 1, 2), ("b", 2, 2), ("b", 3, 2))
    caps: dict[Hashable, int] = {"a": 2, "b": 4}

    assert batcher.next_batch(caps.__getitem__) == [0]
    assert batcher.next_batch(caps.__getitem__) == [2, 3]


def test_a_request_with_many_pictures_leaves_room_for_the_others() -> None:
    batcher = joined(*[("a", 0, 2)] * 8, ("a", 1, 2))

    assert batcher.next_batch(cap(4)) == [0, 8]
    assert batcher.next_batch(cap(6)) == [0, 8, 1]


def test_others_who_keep_coming_do_not_hold_up_a_requests_later_pictures_for_ever() -> None:
    batcher = joined(("a", 0, 2), ("a", 0, 2))
    for owner in range(1, 10):
        batcher.join(owner + 1, "a", owner, 2, 1)

    assert batcher.next_batch(cap(6)) == [0, 2, 1]


def test_a_small_picture_makes_several_steps_while_a_large_one_makes_one() -> None:
    batcher = joined(("small", 0, 1), ("middle", 1, 1), ("large", 2, 1))

    passes = Counter(batcher.next_batch(cap(8))[0] for _ in range(1000))
    assert passes[0] / passes[2] == pytest.approx(4, rel=0.05)  # 16 times as small
    assert passes[1] / passes[2] == pytest.approx(256 / 100, rel=0.05)


def test_many_of_one_key_get_no_more_passes_than_one_of_another() -> None:
    batcher = joined(*[("a", owner, 2) for owner in range(50)], ("b", 50, 2))

    keys = ["b" if batcher.next_batch(cap(4)) == [50] else "a" for _ in range(20)]
    assert keys == ["a", "b"] * 10


def test_a_picture_that_moves_to_another_key_keeps_when_it_came() -> None:
    batcher = joined(("a", 0, 2), ("b", 1, 2), ("b", 2, 2))
    batcher.move(0, "b", 1)
    batcher.move(0, "b", 1)

    assert batcher.next_batch(cap(4)) == [0, 1]
    assert batcher.next_batch(cap(4)) == [0, 1]


def test_a_cap_without_room_for_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="cap is 1 rows; a picture takes 2"):
        joined(("a", 1, 1)).next_batch(cap(1))


def test_misuse_is_refused() -> None:
    batcher = joined(("a", 1, 1))
    with pytest.raises(ValueError, match="already"):
        batcher.join(0, "a", 1, 1, 1)
    with pytest.raises(ValueError, match="at least 1"):
        batcher.join(1, "a", 1, 0, 1)
    with pytest.raises(ValueError, match="at least 1"):
        batcher.join(1, "a", 1, 1, 0)
    with pytest.raises(KeyError):
        batcher.move(1, "a", 1)
    assert not batcher.leave(1)
    assert len(batcher) == 1


@untimed
@given(CROWDS, CROWDS, CAPS)
def test_every_picture_that_joins_finishes_and_no_pass_passes_the_cap(first, later, most) -> None:
    batcher: StepBatcher[int, str] = StepBatcher()
    left: dict[int, int] = {}
    arrivals = list(enumerate([*first, *later]))
    for _ in range(6 * len(arrivals) + 1):  # as many passes as steps, at the most
        while arrivals and (len(left) < len(first) or not len(batcher) or len(arrivals) % 2):
            number, (key, owner, rows, steps) = arrivals.pop(0)
            batcher.join(number, key, owner, rows, SIZES[key])
            left[number] = steps
        everybody = [*first, *later]
        batch = batcher.next_batch(cap(most))
        assert len(set(batch)) == len(batch)
        assert len({everybody[number][0] for number in batch}) <= 1
        assert sum(everybody[number][2] for number in batch) <= most
        for number in batch:
            left[number] -= 1
            if not left[number]:
                batcher.leave(number)
        if arrivals:
            number, (key, owner, rows, steps) = arrivals.pop(0)
            batcher.join(number, key, owner, rows, SIZES[key])
            left[number] = steps
    assert len(batcher) == 0
    assert not any(left.values())


@untimed
@given(st.lists(st.lists(KEYS, max_size=3), max_size=60), CAPS, st.data())
def test_no_key_waits_longer_than_a_turn_of_each_other_key(arrivals, most, data) -> None:
    batcher: StepBatcher[int, str] = StepBatcher()
    keys: list[str] = []
    waited: Counter[str] = Counter()  # passes of others since its own
    met: dict[str, set[str]] = {}  # those others
    for joining in [*arrivals, *[[]] * 30]:
        for key in joining:
            batcher.join(len(keys), key, len(keys), 2, SIZES[key])
            keys.append(key)
            met.setdefault(key, set())
        batch = batcher.next_batch(cap(most))
        if not batch:
            continue
        served = keys[batch[0]]
        for key in met:
            waited[key] += key != served
            met[key].add(served)
            assert waited[key] <= MOST_PASSES * len(met[key] - {key})
        waited[served], met[served] = 0, set()
        if data.draw(st.booleans()):
            batcher.leave(batch[0])
            present = {keys[number] for number in range(len(keys)) if number in batcher}
            met = {key: others for key, others in met.items() if key in present}
            waited = Counter({key: passes for key, passes in waited.items() if key in present})


@untimed
@given(CROWDS, CAPS, st.data())
def test_who_leaves_is_in_no_further_pass_and_the_next_take_the_rows(crowd, most, data) -> None:
    batcher = joined(*[(key, owner, rows) for key, owner, rows, _ in crowd])
    gone = data.draw(st.sets(st.sampled_from(range(len(crowd))))) if crowd else set()
    for number in gone:
        assert batcher.leave(number)
    left = [number for number in range(len(crowd)) if number not in gone]
    if not left:
        assert batcher.next_batch(cap(most)) == []
        return
    batch = batcher.next_batch(cap(most))
    assert not gone & set(batch)
    same = [number for number in left if crowd[number][0] == crowd[batch[0]][0]]
    rows = sum(crowd[number][2] for number in batch)
    # No room is left in which the next in line would have fitted.
    assert len(batch) == len(same) or rows >= most - 1


class AnyOrderOfCalls(RuleBasedStateMachine):
    """Join, leave, move and choose in any order: nobody is lost, nothing is remembered of none."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher: StepBatcher[int, str] = StepBatcher()
        self.here: dict[int, str] = {}
        self.number = 0

    @rule(key=KEYS, owner=st.integers(0, 3), rows=ROWS)
    def join(self, key, owner, rows):
        self.batcher.join(self.number, key, owner, rows, SIZES[key])
        self.here[self.number] = key
        self.number += 1

    @rule(data=st.data(), key=KEYS)
    def move(self, data, key):
        if self.here:
            number = data.draw(st.sampled_from(sorted(self.here)))
            self.batcher.move(number, key, SIZES[key])
            self.here[number] = key

    @rule(data=st.data())
    def leave(self, data):
        if self.here:
            number = data.draw(st.sampled_from(sorted(self.here)))
            assert self.batcher.leave(number)
            del self.here[number]

    @rule(most=CAPS)
    def choose(self, most):
        batch = self.batcher.next_batch(cap(most))
        assert bool(batch) == bool(self.here)
        assert len({self.here[number] for number in batch}) <= 1

    @invariant()
    def everybody_is_here(self):
        assert len(self.batcher) == len(self.here)
        assert all(number in self.batcher for number in self.here)
        if not self.here:
            assert not self.batcher._lines
            assert not self.batcher._owners
            assert not self.batcher._sizes


TestAnyOrderOfCalls = AnyOrderOfCalls.TestCase
TestAnyOrderOfCalls.settings = settings(untimed, stateful_step_count=30)
