"""The fair queue: every job once, in a fair order that position() foretells."""

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from engine.fair_queue import LOOK_AHEAD, MOST_OVERTAKINGS, FairQueue, Ticket
from tests.plain_queue import PlainQueue

# A busy machine decides nothing here.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

OWNERS = st.sampled_from(["ann", "bob", "cem", "dot"])
COSTS = st.integers(0, 50)
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0, 3.0])
ASKS = st.lists(st.tuples(OWNERS, COSTS, WEIGHTS), max_size=60)
GROUPS = st.sampled_from([None, "north", "south", "east"])
GROUPED = st.lists(st.tuples(OWNERS, COSTS, WEIGHTS, GROUPS), max_size=60)
MODELS = st.sampled_from(["red", "green", "blue", "grey"])


def filled(asks: list[tuple]) -> FairQueue:
    queue = FairQueue()
    for number, (owner, cost, weight, *group) in enumerate(asks):
        queue.push(f"{owner}-{number}", owner, cost, weight, group=group[0] if group else None)
    return queue


def drained(queue: FairQueue) -> list[Ticket]:
    return [queue.pop() for _ in range(len(queue))]


def ids(tickets: list[Ticket]) -> list[str]:
    return [ticket.job_id for ticket in tickets]


@untimed
@given(GROUPED)
def test_every_job_is_taken_exactly_once(asks):
    queue = filled(asks)
    assert Counter(ids(drained(queue))) == Counter(
        f"{owner}-{number}" for number, (owner, *_) in enumerate(asks)
    )
    assert len(queue) == 0
    assert queue.peek() is None


@untimed
@given(GROUPED)
def test_an_owners_jobs_in_a_group_keep_their_order(asks):
    lines = {}
    for ticket in drained(filled(asks)):
        lines.setdefault((ticket.group, ticket.owner), []).append(ticket.number)
    assert all(numbers == sorted(numbers) for numbers in lines.values())


@untimed
@given(GROUPED)
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
@given(GROUPED, st.data())
def test_a_restored_job_is_back_where_it_was(asks, data):
    queue = filled([*asks, ("ann", 5, 1.0, None)])
    before = list(queue)
    taken = [queue.pop() for _ in range(data.draw(st.integers(1, len(before))))]
    for ticket in data.draw(st.permutations(taken)):
        queue.restore(ticket)
    assert list(queue) == before
    assert ids(drained(queue)) == before


@untimed
@given(GROUPED, st.data())
def test_a_restored_job_is_not_charged_twice(asks, data):
    asks = [*asks, ("ann", 5, 1.0, None), ("ann", 5, 1.0, None)]
    queue, other = filled(asks), filled(asks)
    queue.restore(queue.pop())
    for number in range(data.draw(st.integers(1, len(asks)))):
        assert queue.pop().job_id == other.pop().job_id
        for each in (queue, other):
            each.push(f"more-{number}", "ann", 5)


@untimed
@given(GROUPED, st.data())
def test_a_removed_job_leaves_the_queue_as_if_it_had_never_come(asks, data):
    asks = [*asks, ("ann", 5, 1.0, None)]
    queue, without = filled(asks), FairQueue()
    gone = data.draw(st.sampled_from(list(queue)))
    for number, (owner, cost, weight, group) in enumerate(asks):
        if f"{owner}-{number}" != gone:
            without.push(f"{owner}-{number}", owner, cost, weight, group=group)
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
    assert len(queue._groups) < 100


def test_members_who_owe_nothing_are_forgotten():
    queue = FairQueue()
    for number in range(1000):
        queue.push(f"job-{number}", f"owner-{number}", 1, group="north")
        queue.pop()
        queue.push(f"tick-{number}", "clock", 3, group="north")
        queue.pop()
    assert len(queue._groups["group north"].lines) < 100


@pytest.mark.parametrize(
    ("cost", "weight"),
    [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0), (1, -2), (1, float("nan"))],
)
def test_numbers_that_would_break_the_order_are_refused(cost, weight):
    queue = FairQueue()
    with pytest.raises(ValueError, match="allowed"):
        queue.push("one", "ann", cost, weight)
    assert len(queue) == 0


def test_who_is_passed_over_keeps_the_place_and_the_owners_later_ones_wait_as_well():
    queue = FairQueue()
    for job_id, owner in (("ann-1", "ann"), ("ann-2", "ann"), ("bob-1", "bob"), ("bob-2", "bob")):
        queue.push(job_id, owner, 1)
    assert queue.peek(passed_over=["ann-1", "bob-1"]) is None
    with pytest.raises(IndexError):
        queue.pop(passed_over=["ann-1", "bob-1"])

    assert queue.pop(passed_over=["ann-1"]).job_id == "bob-1"

    assert queue.position("ann-1") == 1
    taken = queue.pop()
    assert taken.job_id == "ann-1"
    queue.restore(taken)
    assert queue.peek(passed_over=["ann-1"]) in ("ann-2", "bob-2")
    assert queue.pop().job_id == "ann-1"


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
        queue.restore(Ticket("two", "ann", "", 1, 1, "", 7))


@untimed
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.lists(st.tuples(OWNERS, st.integers(1, 50)), min_size=1, max_size=60),
)
def test_a_group_gets_its_share_however_many_members_another_has(small, big):
    queue = FairQueue()
    for number, cost in enumerate(small):
        queue.push(f"small-{number}", "only", cost, group="small")
    for number, (owner, cost) in enumerate(big):
        queue.push(f"big-{number}", owner, cost, group="big")
    bound = max(small) + max(cost for _, cost in big)
    served = {"group small": 0.0, "group big": 0.0}
    left = {"group small": len(small), "group big": len(big)}
    leads = [0.0]
    while all(left.values()):
        ticket = queue.pop()
        left[ticket.group] -= 1
        served[ticket.group] += ticket.cost
        leads.append(served["group small"] - served["group big"])
    assert max(leads) - min(leads) <= bound + 1e-6


@untimed
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.lists(st.integers(1, 50), max_size=30),
)
def test_two_members_of_a_group_get_equal_work_whatever_another_group_asks(ann, bob, others):
    queue = FairQueue()
    for owner, costs in (("ann", ann), ("bob", bob)):
        for number, cost in enumerate(costs):
            queue.push(f"{owner}-{number}", owner, cost, group="north")
    for number, cost in enumerate(others):
        queue.push(f"other-{number}", "other", cost, group="south")
    served = {"ann": 0.0, "bob": 0.0, "other": 0.0}
    left = {"ann": len(ann), "bob": len(bob), "other": len(others)}
    leads = [0.0]
    while left["ann"] and left["bob"]:
        ticket = queue.pop()
        left[ticket.owner] -= 1
        served[ticket.owner] += ticket.cost
        leads.append(served["ann"] - served["bob"])
    assert max(leads) - min(leads) <= max(ann) + max(bob) + 1e-6


@untimed
@given(
    st.integers(1, 50),
    st.integers(1, 10_000),
    st.integers(0, 200),
    st.booleans(),
)
def test_two_hundred_of_a_member_delay_a_single_one_of_the_same_or_another_server_by_one(
    their_cost, my_cost, served, same_server
):
    queue = FairQueue()
    for number in range(200):
        queue.push(f"hog-{number}", "hog", their_cost, group="north")
    for _ in range(min(served, 199)):
        queue.pop()
    queue.push("mine", "me", my_cost, group="north" if same_server else "south")
    assert queue.position("mine") <= 2
    assert served == 0 or queue.position("mine") == 1


def test_a_big_servers_many_members_delay_a_small_servers_single_request_by_one():
    queue = FairQueue()
    for number in range(200):
        queue.push(f"big-{number}", f"member-{number}", 10, group="big")
    queue.push("small-0", "only", 10, group="small")
    queue.push("small-1", "only", 10, group="small")
    assert list(queue)[:4] == ["big-0", "small-0", "big-1", "small-1"]


def test_the_same_member_takes_turns_in_each_server_apart():
    queue = FairQueue()
    queue.push("a", "ann", 10, group="north")
    queue.push("b", "ann", 10, group="south")
    queue.push("c", "ann", 10)
    assert [ticket.group for ticket in drained(queue)] == [
        "group north",
        "group south",
        "owner ann",
    ]


def test_a_group_that_owes_nothing_begins_anew_whether_or_not_it_was_forgotten():
    def after(crowd: int) -> list[str]:
        queue = FairQueue()
        queue.push("first", "ann", 5, group="north")
        queue.pop()
        for number in range(crowd):  # enough of them and the idle are forgotten
            queue.push(f"crowd-{number}", f"owner-{number}", 9)
            queue.push(f"more-{number}", f"owner-{number}", 9)
        for _ in range(2 * crowd):
            queue.pop()
        queue.push("x", "ann", 5, group="north")
        queue.push("y", "bob", 5, group="north")
        return list(queue)

    assert after(2) == after(100) == ["x", "y"]


# Loaded models first


def test_one_whose_model_is_loaded_goes_before_one_whose_model_is_not():
    queue = FairQueue()
    queue.push("a", "ann", 10, key="red")
    queue.push("b", "bob", 10, key="blue")
    assert queue.peek() == "a"
    assert queue.peek({"blue"}) == "b"
    ticket = queue.pop({"blue"})
    assert (ticket.job_id, ticket.overtook) == ("b", 1)
    assert ticket.reason == "drawn with a model that is loaded already"
    assert queue.place("a").overtaken == 1
    assert queue.pop({"blue"}).reason == "first in fair order"


@pytest.mark.parametrize("loaded", [(), {"red"}, {"green"}])
def test_without_anything_to_gain_the_fair_order_stands(loaded):
    queue = FairQueue()
    queue.push("a", "ann", 10, key="red")
    queue.push("b", "bob", 10, key="blue")
    assert queue.pop(loaded).job_id == "a"


def test_what_needs_no_model_is_not_overtaken():
    queue = FairQueue()
    queue.push("a", "ann", 10)
    queue.push("b", "bob", 10, key="blue")
    assert queue.pop({"blue"}).job_id == "a"


def test_a_restored_job_is_not_overtaken():
    queue = FairQueue()
    queue.push("a", "ann", 10, key="red")
    ticket = queue.pop()
    queue.push("b", "bob", 10, key="blue")
    queue.restore(ticket)
    assert queue.pop({"blue"}).job_id == "a"


def test_an_owners_own_order_stands_whatever_is_loaded():
    queue = FairQueue()
    queue.push("a", "ann", 10, key="red")
    queue.push("b", "ann", 10, key="blue")
    assert queue.pop({"blue"}).job_id == "a"


def test_who_overtakes_is_charged_as_always():
    queue = FairQueue()
    queue.push("a", "ann", 10, key="red")
    for number in range(3):
        queue.push(f"b-{number}", "bob", 10, key="blue")
    assert queue.pop({"blue"}).job_id == "b-0"
    assert list(queue) == ["a", "b-1", "b-2"]


def test_overtaking_is_no_way_to_move_a_newcomer_back():
    queue = FairQueue()
    queue.push("a-0", "ann", 10, key="red")
    queue.push("a-1", "ann", 10, key="red")
    queue.push("b-0", "bob", 1000, key="blue")
    queue.push("b-1", "bob", 1000, key="blue")
    assert [queue.pop({"blue"}).job_id for _ in range(2)] == ["b-0", "b-1"]
    queue.push("new", "cem", 10, key="red")
    assert list(queue) == ["a-0", "new", "a-1"]


def test_one_far_behind_is_not_looked_at():
    queue = FairQueue()
    for number in range(LOOK_AHEAD):
        queue.push(f"red-{number}", f"owner-{number}", 10, key="red")
    queue.push("blue", "bob", 10, key="blue")
    assert queue.peek({"blue"}) == "red-0"
    queue.pop()
    assert queue.peek({"blue"}) == "blue"


@untimed
@given(
    st.lists(st.tuples(OWNERS, COSTS, MODELS, GROUPS), min_size=1, max_size=40),
    st.lists(st.tuples(OWNERS, COSTS, MODELS, GROUPS), max_size=150),
    st.integers(1, 3),
)
def test_nobody_is_overtaken_for_a_models_sake_more_often_than_the_bound(first, later, room):
    queue = FairQueue()
    arrivals = iter([*first, *later])
    overtaken: Counter[str] = Counter()
    loaded: list[str] = []
    for number, (owner, cost, model, group) in enumerate(arrivals):
        queue.push(str(number), owner, cost, 1, model, group)
        if number < len(first):
            continue
        order = list(queue)
        ticket = queue.pop(loaded)
        overtaken.update(order[: order.index(ticket.job_id)])
        loaded = [ticket.key, *(key for key in loaded if key != ticket.key)][:room]
    assert max(overtaken.values(), default=0) <= MOST_OVERTAKINGS


@untimed
@given(st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_nobody_starves_beside_a_loaded_model_that_is_always_asked_for(mine, theirs, same_group):
    queue = FairQueue()
    queue.push("mine", "me", mine, key="rare", group="north")
    for number in range(MOST_OVERTAKINGS + 2):
        group = "north" if same_group else None
        queue.push(f"theirs-{number}", f"owner-{number}", theirs, key="common", group=group)
        if queue.pop({"common"}).job_id == "mine":
            assert number >= MOST_OVERTAKINGS  # and not before it must be
            return
    pytest.fail("it still waits")


# What people are told


def test_a_place_says_who_is_before():
    queue = FairQueue()
    for owner in ("bob", "cem", "ann", "ann"):
        queue.push(f"{owner}-{len(queue)}", owner, 10)
    assert list(queue) == ["bob-0", "cem-1", "ann-2", "ann-3"]
    assert str(queue.place("bob-0")) == "next"
    assert str(queue.place("cem-1")) == "number 2: 1 member before you"
    assert str(queue.place("ann-2")) == "number 3: 2 members before you"
    assert str(queue.place("ann-3")) == "number 4: 1 of your own and 2 members before you"
    assert queue.place("nobody") is None


def test_far_from_the_front_a_place_is_a_number():
    queue = FairQueue()
    for number in range(100):
        queue.push(f"ann-{number}", "ann", 10)
    assert str(queue.place("ann-99")) == "number 100"
    assert queue.place("ann-99").own_before == 99


class AnyOrderOfCalls(RuleBasedStateMachine):
    """Whatever is asked in whatever order, it answers as the plain rules say."""

    taken: Bundle[Ticket] = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.plain = PlainQueue()
        self.numbers = itertools.count()

    @rule(owner=OWNERS, cost=COSTS, weight=WEIGHTS, model=MODELS, group=GROUPS)
    def push(self, owner, cost, weight, model, group):
        asked = (f"{owner}-{next(self.numbers)}", owner, cost, weight, model, group)
        self.queue.push(*asked)
        self.plain.push(*asked)

    @rule(
        target=taken,
        loaded=st.sets(MODELS),
        skipped=st.sets(MODELS, max_size=2),
        lanes=st.integers(1, 2),
        data=st.data(),
    )
    def pop(self, loaded, skipped, lanes, data):
        waiting = list(self.queue)
        passed_over = data.draw(st.sets(st.sampled_from(waiting), max_size=2)) if waiting else ()
        asked = (loaded, passed_over, skipped)
        expected = self.plain.find(*asked)
        assert self.queue.peek(*asked) == (expected[-1].job_id if expected else None)
        if not expected:
            return multiple()
        ticket = self.queue.pop(*asked, lanes=lanes)
        assert ticket == self.plain.pop(*asked, lanes=lanes)
        return ticket

    @rule(ticket=consumes(taken))
    def restore(self, ticket):
        self.queue.restore(ticket)
        self.plain.restored.append(ticket)

    @rule(data=st.data())
    def remove(self, data):
        if order := self.plain.order():
            job = data.draw(st.sampled_from(order))
            assert self.queue.remove(job.job_id)
            self.plain.remove(job)

    @invariant()
    def the_order_and_every_place_in_it_are_as_the_rules_say(self):
        order = self.plain.order()
        assert list(self.queue) == ids(order)
        assert len(self.queue) == len(order)
        assert [self.queue.position(job.job_id) for job in order] == [
            at for at, _ in enumerate(order, 1)
        ]
        for model in {job.key for job in order}:
            assert self.queue.waiting_for(model) == sum(job.key == model for job in order)


TestAnyOrderOfCalls = AnyOrderOfCalls.TestCase
TestAnyOrderOfCalls.settings = settings(untimed, stateful_step_count=30)


@pytest.mark.parametrize("groups", [1, 20])
def test_a_crowd_is_in_the_order_that_the_plain_rules_say(groups):
    random = Random(groups)  # noqa: S311 - made-up requests, no secrets
    queue, plain = FairQueue(), PlainQueue()
    for number in range(3000):  # as many as make trees of several levels
        cost, weight = random.randrange(1, 10**9), random.choice((0.1, 1, 2.0))
        group = str(random.randrange(groups))
        asked = (str(number), f"owner {random.randrange(90)}", cost, weight, "", group)
        queue.push(*asked)
        plain.push(*asked)
    for _ in range(5):
        for job in random.sample(plain.order(), 100):
            assert queue.remove(job.job_id)
            plain.remove(job)
        assert queue.pop() == plain.pop()
        order = plain.order()
        assert list(queue) == ids(order)
        assert [queue.position(job.job_id) for job in order] == [
            at for at, _ in enumerate(order, 1)
        ]
