from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.estimates import Device, Leg, Work, forecast, longest_round, predict, work_of
from engine.jobs import ModelSpec, Sampler
from engine.pace import ENOUGH, Act, Figure, Pace
from tests.worker_kit import ask

LOAD, BEGIN, PASS, DECODE = 10.0, 0.5, 2.0, 0.25
PIXELS = 64


def a_pace(*models: str, rows: dict[int, float] | None = None) -> Pace:
    """What takes the same for each model; a pass of up to four rows takes as long as one."""
    figures = []
    for model in models or ("m",):
        figures += [
            Figure(Act.LOAD, model, LOAD),
            Figure(Act.BEGIN, model, BEGIN),
            Figure(Act.DECODE, model, DECODE, pixels=PIXELS),
        ]
        figures += [
            Figure(Act.PASS, model, seconds, ENOUGH, PIXELS, number)
            for number, seconds in (rows or {1: PASS, 4: PASS, 8: 2 * PASS}).items()
        ]
    return Pace(figures)


def a_work(name: str, passes: float = 3, rows: int = 2, pictures: int = 1, model: str = "m"):
    return Work(name, (Leg(model, passes),), PIXELS, rows, pictures, (model,))


def a_device(capacity: int = 1, loaded: tuple[str, ...] = ("m",), **changes) -> Device:
    return replace(Device(a_pace(), capacity, 8, loaded), **changes)


def test_one_alone_takes_what_its_parts_take():
    work = a_work("a", passes=3, pictures=2)

    assert forecast([a_device()], [work]) == {"a": BEGIN + 3 * PASS + 2 * DECODE}
    cold = forecast([a_device(loaded=())], [work])
    assert cold == {"a": LOAD + BEGIN + 3 * PASS + 2 * DECODE}


def test_who_waits_comes_after_those_before_it():
    found = forecast([a_device()], [a_work("a"), a_work("b")])

    alone = BEGIN + 3 * PASS + DECODE
    assert found == {"a": alone, "b": pytest.approx(2 * alone)}


def test_company_below_the_knee_costs_nothing_but_its_own_prompt_and_decode():
    found = forecast([a_device(capacity=2)], [a_work("a"), a_work("b", passes=5)])

    assert found["a"] == pytest.approx(2 * BEGIN + 3 * PASS + DECODE)
    assert found["b"] == pytest.approx(2 * BEGIN + 5 * PASS + 2 * DECODE)


def test_above_the_knee_the_first_go_first():
    pace = a_pace(rows={2: 1.0, 4: 2.0})
    assert pace.knee("m", PIXELS) == 2

    found = forecast([a_device(capacity=2, pace=pace)], [a_work("a"), a_work("b")])

    assert found["a"] == pytest.approx(2 * BEGIN + 3 + DECODE)
    assert found["b"] == pytest.approx(2 * BEGIN + 3 + DECODE + 3 + DECODE)


def test_two_models_share_the_time():
    device = a_device(capacity=2, pace=a_pace("m", "n"), loaded=("m", "n"))
    found = forecast([device], [a_work("a", passes=2), a_work("b", passes=4, model="n")])

    assert found["a"] == pytest.approx(2 * BEGIN + 2 * 2 * PASS + DECODE)
    assert found["b"] == pytest.approx(2 * BEGIN + 6 * PASS + 2 * DECODE)


def test_a_second_device_takes_what_the_first_has_no_room_for():
    found = forecast([a_device(), a_device()], [a_work("a"), a_work("b"), a_work("c")])

    alone = BEGIN + 3 * PASS + DECODE
    assert found == {"a": alone, "b": alone, "c": pytest.approx(2 * alone)}


def test_what_runs_has_made_some_of_its_way():
    half = a_work("a", passes=4).after(0.5)
    found = forecast([a_device(running=[half])], [a_work("b")])

    first = 2 * PASS + DECODE
    assert found == {"a": first, "b": pytest.approx(first + BEGIN + 3 * PASS + DECODE)}


def test_a_load_under_way_has_less_left():
    device = a_device(loaded=(), running=[a_work("a")], loading=4.0)
    assert forecast([device], [])["a"] == LOAD - 4 + BEGIN + 3 * PASS + DECODE

    late = replace(device, loading=99.0)
    assert forecast([late], [])["a"] == BEGIN + 3 * PASS + DECODE


def test_a_load_that_waits_holds_up_those_behind_it():
    load = Work("load", models=("m",))
    found = forecast([a_device(loaded=())], [load, a_work("a")])

    assert found == {"load": LOAD, "a": pytest.approx(LOAD + BEGIN + 3 * PASS + DECODE)}


# Whose way back was never measured is expected from the disk, see test_host_cache.py.
@pytest.mark.parametrize("missing", [act for act in Act if act is not Act.SWITCH])
def test_what_was_not_measured_is_not_made_up(missing):
    known = Pace(figure for figure in a_pace().figures() if figure.act is not missing)
    device = a_device(pace=known, loaded=())

    assert forecast([device], [a_work("a")]) == {}


def test_what_is_unknown_hides_those_behind_it_and_not_those_before():
    found = forecast([a_device()], [a_work("a"), a_work("b", model="new"), a_work("c")])

    assert found.keys() == {"a"}


def test_without_a_device_nothing_is_known():
    assert forecast([], [a_work("a")]) == {}


def test_another_size_is_not_known():
    assert forecast([a_device()], [replace(a_work("a"), pixels=128)]) == {}


def test_passes_that_take_no_time_end_all_the_same():
    device = a_device(capacity=2, pace=a_pace(rows={2: 0.0}))
    found = forecast([device], [a_work("a"), a_work("b")])

    assert found == {"a": 2 * BEGIN + DECODE, "b": 2 * BEGIN + 2 * DECODE}


works = st.lists(
    st.tuples(st.floats(0, 50), st.integers(1, 16), st.integers(1, 4), st.sampled_from("mno")),
    max_size=12,
)


@given(works, st.integers(1, 4), st.integers(1, 3), st.integers(0, 12))
def test_all_end_in_whole_time_and_nobody_sooner_than_alone(asked, capacity, devices, running):
    all_works = [a_work(str(number), *each) for number, each in enumerate(asked)]
    pace = a_pace("m", "n", "o")
    split = min(running, capacity, len(all_works))
    device = Device(pace, capacity, 8, ("m",), all_works[:split])
    others = [replace(device, running=()) for _ in range(devices - 1)]

    found = forecast([device, *others], all_works[split:])

    assert found.keys() == {work.job_id for work in all_works}
    for work in all_works:
        [alone] = forecast([replace(device, running=(), loaded=("m", "n", "o"))], [work]).values()
        assert found[work.job_id] >= alone - 1e-6
    one_by_one = sum(
        LOAD + forecast([replace(device, running=(), loaded="mno")], [work])[work.job_id]
        for work in all_works
    )
    assert max(found.values(), default=0) <= one_by_one * 1.001 + 1e-6


@given(works, st.integers(1, 4))
def test_who_has_more_before_it_is_not_done_sooner_on_one_place(asked, number):
    all_works = [a_work(str(number), *each) for number, each in enumerate(asked)]
    device = a_device(pace=a_pace("m", "n", "o"))
    last = a_work("last")

    with_all = forecast([device], [*all_works, last])["last"]
    with_fewer = forecast([device], [*all_works[number:], last])["last"]

    assert with_all >= with_fewer - 1e-6


def test_a_request_is_counted_with_its_passes_rows_and_refiner(tmp_path: Path):
    refiner = ModelSpec(tmp_path / "refiner")
    request = ask(steps=10, count=3, sampler=Sampler.HEUN, refiner=refiner, refiner_from=0.8)

    work = work_of("a", request)

    assert [leg.model for leg in work.legs] == [request.model.key, refiner.key]
    assert [leg.passes for leg in work.legs] == [15, 4]
    assert (work.rows, work.pictures, work.pixels) == (6, 3, request.width * request.height)
    assert [leg.passes for leg in work.after(0.9).legs] == pytest.approx([0, 1.9])
    assert work_of("b", ask(guidance_scale=1)).rows == 1
    assert work_of("c", ask(source=tmp_path, strength=0.5, steps=10)).legs[0].passes == 5


def test_a_round_is_known_where_all_of_it_was_measured():
    pace = a_pace("m", "n")
    works = [a_work("a"), a_work("b", model="n", rows=99), a_work("c")]

    assert longest_round(pace, [], 8) == 0
    assert longest_round(pace, works, 8) == 3 * BEGIN + 2 * PASS + 2 * PASS + 2 * DECODE
    assert longest_round(pace, [*works, a_work("d", model="new")], 8) is None


def test_a_prediction_is_a_forecast_of_who_joins_now():
    request = ask(steps=3)
    key, pixels = request.model.key, request.width * request.height
    pace = Pace(
        [
            Figure(Act.BEGIN, key, BEGIN),
            Figure(Act.DECODE, key, DECODE, pixels=pixels),
            Figure(Act.PASS, key, PASS, pixels=pixels, rows=2),
        ]
    )
    device = Device(pace, 1, 8, (key,))

    assert predict(request, device) == BEGIN + 3 * PASS + DECODE
    busy = replace(device, running=[work_of("x", request).after(0.0)])
    assert predict(request, busy) > predict(request, device)
    assert predict(request, replace(device, loaded=())) is None
