from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.estimates import share_of
from engine.fair_queue import MOST_OVERTAKINGS, SKIPPED_AT_MOST, FairQueue
from engine.fleet_size import FleetSize
from engine.jobs import GenerationRequest, ModelSpec, Sampler
from engine.pace import Act, Figure, Pace
from engine.placement import Places, choose, had_better_wait


@dataclass(eq=False)
class Place:
    models: set[str] = field(default_factory=set)
    load: float = 0.0
    failures: int = 0
    seconds: float | None = None

    @property
    def held(self) -> int:
        return len(self.models)

    def has(self, key: str) -> bool:
        return key in self.models


def test_a_job_goes_where_its_model_is() -> None:
    empty, other, has = Place(), Place({"b"}), Place({"a"})

    assert choose([empty, other, has], "a") is has
    assert choose([empty, other], "a") is empty  # nothing need go for it there
    assert choose([], "a") is None
    assert choose([Place(load=0.5), other], None) is other


def test_a_busy_place_that_has_the_model_is_left_where_another_draws_sooner() -> None:
    has, empty = Place({"a"}, load=0.5, seconds=9.0), Place(seconds=5.0)

    assert choose([has, empty], "a", finish=lambda place: place.seconds) is empty
    empty.seconds = 10.0
    assert choose([has, empty], "a", finish=lambda place: place.seconds) is has


def test_where_nothing_is_known_a_second_place_is_used() -> None:
    has, empty = Place({"a"}, load=0.5), Place()

    assert choose([has, empty], "a") is empty
    assert choose([has, empty], "a", prefer_loaded=True) is has


def test_a_place_that_failed_comes_last_even_if_it_has_the_model() -> None:
    failed, sound = Place({"a"}, failures=1), Place({"b"}, load=0.5)

    assert choose([failed, sound], "a") is sound
    assert choose([failed, sound], "a", prefer_loaded=True) is sound
    assert choose([failed], "a") is failed


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["put", "put", "put", "fill", "remove"]),
        st.builds(
            Place,
            models=st.sets(st.sampled_from("abc")),
            load=st.sampled_from([0.0, 0.5]),
            failures=st.sampled_from([0, 0, 0, 1]),
            seconds=st.sampled_from([None, 1.0, 2.0]),
        ),
    ),
    max_size=30,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_places_that_are_kept_in_order_are_chosen_like_those_that_are_all_looked_at(
    changes: list[tuple[int, str, Place]],
) -> None:
    places: Places[Place] = Places()
    all_places = [Place() for _ in range(6)]
    known: dict[int, bool] = {}  # which have room, in the order in which they were put
    for number, what, like in changes:
        place = all_places[number]
        place.models, place.load = like.models, like.load
        place.failures, place.seconds = like.failures, like.seconds
        if what == "remove":
            places.remove(place)
            known.pop(number, None)
        else:
            known[number] = what == "put"
            places.put(place, place.models, has_room=known[number])
        room = [all_places[each] for each, has_room in known.items() if has_room]
        assert len(places) == len(room)
        for key, fits in product(("a", "b", None), (lambda _: True, all_places[::2].__contains__)):
            free = [each for each in room if fits(each)]
            for prefer_loaded in (False, True):
                asked = {"prefer_loaded": prefer_loaded, "finish": lambda each: each.seconds}
                assert places.choose(key, fits=fits, **asked) is choose(free, key, **asked)
            if key is not None:
                having = [all_places[each] for each in known if all_places[each].has(key)]
                first = next((each for each in having if fits(each)), None)
                assert places.holders(key, fits) == (len(having), first)
                assert places.has_room_with(key, fits) == any(each.has(key) for each in free)


@pytest.mark.parametrize(
    ("waiting", "holders", "job", "switch", "waits"),
    [
        (1, 1, 2.0, 5.0, True),
        (3, 1, 2.0, 5.0, False),  # six seconds of work, a load takes five
        (3, 2, 2.0, 5.0, True),
        (1, 0, 2.0, 5.0, False),  # nobody has it
        (1, 1, None, 5.0, False),
        (1, 1, 2.0, None, False),
    ],
)
def test_a_copy_is_loaded_once_the_queue_for_a_model_is_longer_than_a_switch(
    waiting: int, holders: int, job: float | None, switch: float | None, waits: bool
) -> None:
    assert had_better_wait(waiting, holders, job, switch) is waits


def test_what_a_request_takes_of_a_device_counts_that_others_share_its_passes() -> None:
    model = ModelSpec(Path("a"))
    request = GenerationRequest("m", model, "", "", 64, 64, 10, 5.0, Sampler.EULER, 0)
    pixels = 64 * 64
    passes = [Figure(Act.PASS, model.key, 0.1, 3, pixels, rows) for rows in (2, 8)]
    decode = Figure(Act.DECODE, model.key, 0.05, 3, pixels)

    # Eight rows take as long as two: four such requests share each of the ten passes.
    assert share_of(request, Pace([*passes, decode]), 8) == pytest.approx(10 * 0.1 / 4 + 0.05)
    assert share_of(request, Pace(passes), 8) is None
    assert share_of(request, Pace(), 8) is None


class TestFleetSize:
    def test_without_a_bound_it_is_what_there_is(self) -> None:
        size = FleetSize()

        assert not size.is_elastic
        assert size.wanted(jobs=100, present=3, now=0) == 3

    def test_more_are_wanted_at_once_and_fewer_after_a_while(self) -> None:
        size = FleetSize(1, 8, jobs_each=4, idle_seconds=300)

        assert size.wanted(jobs=0, present=0, now=0) == 1
        assert size.wanted(jobs=9, present=1, now=10) == 3
        assert size.wanted(jobs=400, present=3, now=20) == 8
        assert size.wanted(jobs=0, present=8, now=300) == 8
        assert size.wanted(jobs=5, present=8, now=310) == 8
        assert size.wanted(jobs=0, present=8, now=321) == 2  # five jobs were there within it
        assert size.wanted(jobs=0, present=2, now=700) == 1

    def test_it_forgets_what_no_longer_matters(self) -> None:
        size = FleetSize(0, 100, idle_seconds=10)

        for second in range(10_000):
            size.wanted(jobs=second % 50, present=0, now=second)

        assert len(size._needs) < 60


class TestQueue:
    def test_jobs_of_a_skipped_model_keep_their_places(self) -> None:
        queue = FairQueue()
        for number, key in enumerate("aab"):
            queue.push(f"job {number}", f"member {number}", 1, key=key)

        assert queue.waiting_for("a") == 2
        assert queue.pop(skipped={"a"}).job_id == "job 2"
        assert queue.peek(skipped={"a"}) is None
        assert [queue.pop().job_id, queue.pop().job_id] == ["job 0", "job 1"]
        assert queue.waiting_for("a") == 0

    def test_nobody_looks_past_more_than_a_bounded_number_of_them(self) -> None:
        queue = FairQueue()
        for number in range(SKIPPED_AT_MOST):
            queue.push(f"job {number}", f"member {number}", 1, key="a")
        queue.push("far", "far", 1, key="b")

        assert queue.peek(skipped={"a"}) is None
        queue.pop()
        assert queue.peek(skipped={"a"}) == "far"

    def test_who_may_go_is_told_in_fair_order_as_far_as_jobs_are_looked_at(self) -> None:
        queue = FairQueue()
        queue.push("first", "ann", 1, key="a")
        queue.push("behind it", "ann", 1, key="b")
        for number in range(SKIPPED_AT_MOST):
            queue.push(f"job {number}", f"member {number}", 1, key="b")

        found = list(queue.in_turn())
        assert found == ["first", *(f"job {number}" for number in range(SKIPPED_AT_MOST - 1))]
        assert list(queue.in_turn(passed_over={"first"}))[-1] == f"job {SKIPPED_AT_MOST - 1}"
        assert list(queue.in_turn(skipped={"b"})) == ["first"]

    def test_nobody_overtakes_who_can_not_go_there(self) -> None:
        queue = FairQueue()
        for number, key in enumerate("abb"):
            queue.push(f"job {number}", f"member {number}", 1, key=key)

        taken = queue.pop({"b"}, fits=lambda job_id: job_id != "job 1")
        assert (taken.job_id, taken.overtook) == ("job 2", 1)
        assert queue.pop({"b"}, fits=lambda _: False).job_id == "job 0"

    def test_a_job_is_overtaken_as_often_as_there_are_lanes_for_it(self) -> None:
        queue = FairQueue()
        queue.push("rare", "rare", 1, key="rare")
        for number in range(5 * MOST_OVERTAKINGS):
            queue.push(f"job {number}", f"member {number}", 1, key="a")
        taken = [queue.pop({"a"}, lanes=3).job_id for _ in range(3 * MOST_OVERTAKINGS + 1)]

        assert taken.index("rare") == 3 * MOST_OVERTAKINGS

    def test_counts_by_model_follow_what_is_taken_back_and_cancelled(self) -> None:
        queue = FairQueue()
        queue.push("one", "ann", 1, key="a")
        ticket = queue.pop()
        queue.restore(ticket)
        assert queue.waiting_for("a") == 1
        queue.remove("one")
        assert queue.waiting_for("a") == 0
