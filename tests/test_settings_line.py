"""A request's settings on one line, as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import settings_line
from engine.errors import RequestError
from engine.jobs import RequestDraft, Sampler
from tests.records_kit import a_request

DRAFT = RequestDraft("x")


def read(line: str) -> RequestDraft:
    return settings_line.read(line, DRAFT)


@given(
    st.integers(1, 500),
    st.floats(1, 100).map(lambda value: float(f"{value:g}")),
    st.sampled_from(Sampler),
    st.integers(1, 10),
    st.sampled_from(["demo", "dreams-pixel", "SD_1.5"]),
)
def test_what_is_written_reads_as_it_was(
    steps: int, guidance: float, sampler: Sampler, count: int, mode: str
) -> None:
    request = a_request(
        steps=steps, guidance_scale=guidance, sampler=sampler, count=count, mode=mode
    )

    draft = read(settings_line.written(request))

    assert (draft.steps, draft.guidance_scale, draft.sampler) == (steps, guidance, sampler.value)
    assert (draft.count, draft.mode, draft.strength) == (count, mode, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        (" , ,", {}),
        ("STEPS 30", {"steps": 30}),
        ("steps=30,guidance:7.5", {"steps": 30, "guidance_scale": 7.5}),
        ("guidance 7,5, count 2", {"guidance_scale": 7.5, "count": 2}),
        ("strength 0,5,steps 4", {"strength": 0.5, "steps": 4}),
        ("sampler   dpm++ 2m   karras", {"sampler": "dpm++ 2m   karras"}),
    ],
)
def test_people_write_it_in_their_own_way(line: str, expected: dict[str, object]) -> None:
    draft = read(line)

    changed = {name: getattr(draft, name) for name in expected}
    assert changed == expected
    assert draft.prompt == "x"


@pytest.mark.parametrize(
    "line",
    [
        "steps",
        "30 steps",
        "steps 30 guidance 7",
        "speed 3",
        "steps 3, steps 4",
        "steps 1e3",
        "steps ٣",
        "guidance nan",
        "guidance inf",
        "steps " + "9" * 400,
        "prompt a cat",
        "; DROP TABLE jobs",
    ],
)
def test_what_can_not_be_read_is_refused(line: str) -> None:
    with pytest.raises(RequestError, match="is not allowed"):
        read(line)


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(line: str) -> None:
    with suppress(RequestError):
        assert read(line).prompt == "x"
