"""What is suggested while somebody types."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.suggestions import LENGTH, LIMIT, best, lora_options
from modes.lora_choices import read_list

MODES = [
    ("Dreams (dreams): Painterly, soft", "dreams"),
    ("Dreams XL (dreams-xl): Large and slow", "dreams-xl"),
    ("Pixels (pixel): Like an old game", "pixel"),
]
LORAS = ["soft light", "pixel-art", "Ink", "ink wash"]


def values(typed: str) -> list[str]:
    return [value for _, value in best(typed, MODES)]


@pytest.mark.timeout(60)  # it would take for ever, were all ways tried to place the letters
def test_letters_that_nearly_fit_in_many_ways_are_looked_for_once() -> None:
    options = [("e" * 1000, str(number)) for number in range(50)]

    assert best("e" * 50 + "q", options) == []
    assert len(best("e" * 49 + " e", [*options, ("eve" * 50, "fits")])) > 0


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ["dreams", "dreams-xl", "pixel"]),
        ("  DREAMS ", ["dreams", "dreams-xl"]),
        ("dreams-xl", ["dreams-xl"]),
        ("soft", ["dreams"]),
        ("ame", ["pixel"]),
        ("drxl", ["dreams-xl"]),
        ("pixle", ["pixel"]),
        ("driems", ["dreams", "dreams-xl"]),
        ("zzz", []),
    ],
)
def test_what_fits_is_found_the_best_first(typed: str, expected: list[str]) -> None:
    assert values(typed) == expected


def test_a_word_that_begins_so_comes_before_one_that_holds_it() -> None:
    found = best("art", [("smart", "1"), ("pixel art", "2"), ("artist", "3"), ("art", "art")])

    assert [value for _, value in found] == ["art", "3", "2", "1"]


@given(st.text(), st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_whatever_is_typed_discord_takes_the_answer(
    typed: str, options: list[tuple[str, str]]
) -> None:
    found = best(typed, options)

    assert len(found) <= LIMIT
    assert all(0 < len(shown) <= LENGTH and 0 < len(value) <= LENGTH for shown, value in found)
    assert {value for _, value in found} <= {value for _, value in options}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", LORAS),
        ("pix", ["pixel-art"]),
        ("ink:0.5", []),
        ("Ink:0.5", ["Ink:0.5"]),
        ("soft light:0.8, in", ["soft light:0.8, Ink", "soft light:0.8, ink wash"]),
        ("ink, soft", ["ink, soft light"]),
        (" , ,pix", ["pixel-art"]),
        ("soft light,", ["soft light, pixel-art", "soft light, Ink", "soft light, ink wash"]),
    ],
)
def test_the_last_entry_of_a_list_is_completed(typed: str, expected: list[str]) -> None:
    assert [value for _, value in lora_options(typed, LORAS)] == expected


@given(st.text(max_size=120), st.lists(st.text(max_size=110)))
def test_a_list_stays_within_what_discord_takes(typed: str, names: list[str]) -> None:
    found = lora_options(typed, names)

    assert len(found) <= LIMIT
    assert all(0 < len(value) <= LENGTH for _, value in found)


@given(st.lists(st.sampled_from(LORAS), min_size=1, max_size=3, unique=True))
def test_what_is_suggested_can_be_asked_for(names: list[str]) -> None:
    *before, last = names
    typed = ", ".join([*(f"{name}:0.5" for name in before), last[:2]])

    for _, value in lora_options(typed, LORAS):
        assert [choice.name for choice in read_list(value)][:-1] == before
