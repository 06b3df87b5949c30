"""The fair queue: every job once, in a fair order that position() foretells."""

import itertools
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from engine.fair_queue import FairQueue, Ticket

# A busy machine decides nothing here.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

OWNERS = st.sampled_from(["ann", "bob", "cem", "dot"])
COSTS = st.integers(0, 50)
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0, 3.0])
ASKS = st.lists(st.tuples(OWNERS, COSTS, WEIGHTS), max_size=60)


def filled(asks: list[tuple[str, int, float]]) -> FairQueue:
    queue = FairQueue()
    for number, (owner, cost, weight) in enumerate(asks):
        queue.push(f"{owner}-{number}", owner, cost, weight)
    return queue


def drained(queue: FairQueue) -> list[Ticket]:
    return [queue.pop() for _ in range(len(queue))]


def ids(tickets: list[Ticket]) -> list[str]:
    return [ticket.job_id for ticket in tickets]


@untimed
@given(ASKS)
def test_every_job_is_taken_exactly_once(asks):
    queue = filled(asks)
    assert Counter(ids(drained(queue))) == Counter(
        f"{owner}-{number}" for number, (owner, _, _) in enumerate(asks)
    )
    assert len(queue) == 0
    assert queue.peek() is None


@untimed
@given(ASKS)
def test_an_owners_jobs_keep_their_order(asks):
    taken = drained(filled(asks))
    for owner in {ticket.owner for ticket in taken}:
        numbers = [ticket.number for ticket in taken if ticket.owner == owner]
        assert numbers == sorted(numbers)


@untimed
@given(ASKS)
def test_positions_are_the_order_in_which_jobs_are_taken(asks):
    queue = filled(asks)
    order = list(queue)
    assert [queue.position(job_id) for job_id in order] == list(range(1, len(order) + 1))
    assert ids(drained(queue)) == order


@untimed
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    WEIGHTS,
    WEIGHTS,
)
def test_two_who_both_wait_get_work_by_weight_within_one_job_each(costs_a, costs_b, w_a, w_b):
    queue = FairQueue()
    for number, cost in enumerate(costs_a):
        queue.push(f"a{number}", "a", cost, w_a)
    for number, cost in enumerate(costs_b):
        queue.push(f"b{number}", "b", cost, w_b)
    bound = max(costs_a) / w_a + max(costs_b) / w_b  # the theorem's, for any stretch of time
    served = {"a": 0.0, "b": 0.0}
    left = {"a": len(costs_a), "b": len(costs_b)}
    leads = [0.0]
    while all(left.values()):
        ticket = queue.pop()
        left[ticket.owner] -= 1
        served[ticket.owner] += ticket.cost / ticket.weight
        leads.append(served["a"] - served["b"])
    assert max(leads) - min(leads) <= bound + 1e-6


@untimed
@given(
    st.integers(1, 100),
    st.integers(1, 50),
    st.integers(1, 10_000),
    WEIGHTS,
    st.integers(0, 100),
)
def test_a_hundred_requests_delay_anothers_single_one_by_what_is_in_service(
    many, their_cost, my_cost, weight, served
):
    queue = FairQueue()
    for number in range(many):
        queue.push(f"hog-{number}", "hog", their_cost, weight)
    for _ in range(min(served, many)):
        queue.pop()
    queue.push("mine", "me", my_cost)
    # With none in service yet, the hog's first came before and goes before.
    assert queue.position("mine") == (1 if served else 2)


@untimed
@given(ASKS, st.integers(0, 60))
def test_a_newcomer_waits_for_at_most_one_job_of_each_other_owner(asks, served):
    queue = filled([(owner, max(cost, 1), weight) for owner, cost, weight in asks])
    for _ in range(min(served, len(queue))):
        queue.pop()
    queue.push("mine", "me", 10_000)
    ahead = list(itertools.takewhile(lambda job_id: job_id != "mine", queue))
    assert all(count == 1 for count in Counter(name.split("-")[0] for name in ahead).values())


@untimed
@given(COSTS, st.integers(1, 20))
def test_nobody_starves_beside_an_owner_who_never_stops(their_cost, my_cost):
    queue = FairQueue()
    queue.push("mine-0", "me", my_cost)
    queue.push("mine-1", "me", my_cost)
    for number in range(my_cost + 2):  # free jobs are charged 1: so many at most go first
        queue.push(f"hog-{number}", "hog", their_cost)
        if queue.pop().job_id == "mine-1":
            return
    assert queue.peek() == "mine-1"


@untimed
@given(ASKS, st.data())
def test_a_restored_job_is_back_where_it_was(asks, data):
    queue = filled([*asks, ("ann", 5, 1.0)])
    before = list(queue)
    taken = [queue.pop() for _ in range(data.draw(st.integers(1, len(before))))]
    for ticket in data.draw(st.permutations(taken)):
        queue.restore(ticket)
    assert list(queue) == before
    assert ids(drained(queue)) == before


@untimed
@given(ASKS, st.data())
def test_a_restored_job_is_not_charged_twice(asks, data):
    asks = [*asks, ("ann", 5, 1.0), ("ann", 5, 1.0)]
    queue, other = filled(asks), filled(asks)
    queue.restore(queue.pop())
    for _ in range(data.draw(st.integers(1, len(asks)))):
        assert queue.pop().start == other.pop().start


@untimed
@given(ASKS, st.data())
def test_a_removed_job_leaves_the_queue_as_if_it_had_never_come(asks, data):
    asks = [*asks, ("ann", 5, 1.0)]
    queue, without = filled(asks), FairQueue()
    gone = data.draw(st.sampled_from(list(queue)))
    for number, (owner, cost, weight) in enumerate(asks):
        if f"{owner}-{number}" != gone:
            without.push(f"{owner}-{number}", owner, cost, weight)
    assert queue.remove(gone)
    assert not queue.remove(gone)
    assert queue.position(gone) is None
    assert list(queue) == list(without)
    assert ids(drained(queue)) == ids(drained(without))


def test_twice_the_weight_is_twice_the_work():
    queue = FairQueue()
    for number in range(30):
        queue.push(f"plain-{number}", "plain", 10)
        queue.push(f"patron-{number}", "patron", 10, weight=2)
    first = Counter(queue.pop().owner for _ in range(30))
    assert first == {"plain": 10, "patron": 20}


def test_big_pictures_are_charged_more_than_small_ones():
    queue = FairQueue()
    for number in range(8):
        queue.push(f"small-{number}", "small", 10)
        queue.push(f"big-{number}", "big", 40)
    first = Counter(queue.pop().owner for _ in range(10))
    assert first == {"small": 8, "big": 2}


def test_an_owner_who_pauses_owes_no_more_than_one_job_and_gains_nothing():
    queue = FairQueue()
    for number in range(50):
        queue.push(f"hog-{number}", "hog", 10)
    drained(queue)
    for number in range(3):
        queue.push(f"back-{number}", "hog", 10)
        queue.push(f"new-{number}", "new", 10)
    assert list(queue) == ["new-0", "back-0", "new-1", "back-1", "new-2", "back-2"]


def test_time_away_is_no_credit():
    queue = FairQueue()
    queue.push("once", "ann", 10)
    queue.pop()
    for number in range(50):
        queue.push(f"other-{number}", "other", 10)
    for _ in range(40):
        queue.pop()
    for number in range(3):
        queue.push(f"ann-{number}", "ann", 10)
    assert list(queue)[:4] == ["ann-0", "other-40", "ann-1", "other-41"]


def test_what_an_owner_owes_is_not_forgotten_with_the_idle_ones():
    queue = FairQueue()
    queue.push("big", "hog", 1000)
    queue.pop()
    for number in range(40):
        queue.push(f"job-{number}", f"owner-{number}", 1)
    queue.push("more", "hog", 1)
    queue.push("late", "newcomer", 1)
    assert list(queue)[-2:] == ["late", "more"]


def test_the_key_stays_with_its_job():
    queue = FairQueue()
    queue.push("one", "ann", 1, key="model-a")
    assert queue.pop().key == "model-a"


def test_owners_who_owe_nothing_are_forgotten():
    queue = FairQueue()
    for number in range(1000):
        queue.push(f"job-{number}", f"owner-{number}", 1)
        queue.push(f"more-{number}", f"owner-{number}", 1)
        queue.remove(f"more-{number}")
        queue.pop()
        queue.push(f"tick-{number}", "clock", 3)
        queue.pop()
    assert len(queue._lines) < 100


@pytest.mark.parametrize(
    ("cost", "weight"),
    [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0), (1, -2), (1, float("nan"))],
)
def test_numbers_that_would_break_the_order_are_refused(cost, weight):
    queue = FairQueue()
    with pytest.raises(ValueError, match="allowed"):
        queue.push("one", "ann", cost, weight)
    assert len(queue) == 0


def test_misuse_is_refused():
    queue = FairQueue()
    queue.push("one", "ann", 1)
    with pytest.raises(ValueError, match="already"):
        queue.push("one", "bob", 1)
    ticket = queue.pop()
    queue.restore(ticket)
    with pytest.raises(ValueError, match="already"):
        queue.restore(ticket)
    queue.pop()
    with pytest.raises(IndexError, match="nothing waits"):
        queue.pop()
    with pytest.raises(ValueError, match="never taken"):
        queue.restore(Ticket("two", "ann", 1, 1, "", 7))


class AnyOrderOfCalls(RuleBasedStateMachine):
    """Push, pop, remove and restore in any order: nothing is lost, nothing comes twice."""

    taken: Bundle[Ticket] = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.waiting: set[str] = set()
        self.numbers = itertools.count()

    @rule(owner=OWNERS, cost=COSTS, weight=WEIGHTS)
    def push(self, owner, cost, weight):
        job_id = f"{owner}-{next(self.numbers)}"
        self.queue.push(job_id, owner, cost, weight)
        self.waiting.add(job_id)

    @rule(target=taken)
    def pop(self):
        if not self.waiting:
            return Ticket("none", "none", 0, 1, "", -1)
        expected = next(iter(self.queue))
        assert self.queue.peek() == expected
        ticket = self.queue.pop()
        assert ticket.job_id == expected
        self.waiting.remove(ticket.job_id)
        return ticket

    @rule(ticket=consumes(taken))
    def restore(self, ticket):
        if ticket.number >= 0:
            self.queue.restore(ticket)
            self.waiting.add(ticket.job_id)
            # Whoever was taken before goes before all who were not.
            assert all(
                self.queue._tickets[job_id].start is not None
                for job_id in itertools.takewhile(lambda job: job != ticket.job_id, self.queue)
            )

    @rule(data=st.data())
    def remove(self, data):
        if self.waiting:
            job_id = data.draw(st.sampled_from(sorted(self.waiting)))
            assert self.queue.remove(job_id)
            self.waiting.remove(job_id)

    @invariant()
    def all_that_wait_have_a_place(self):
        assert len(self.queue) == len(self.waiting)
        assert set(self.queue) == self.waiting


TestAnyOrderOfCalls = AnyOrderOfCalls.TestCase
TestAnyOrderOfCalls.settings = settings(untimed, stateful_step_count=30)
