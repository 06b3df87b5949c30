"""Permutations: every combination once, counted before any is made."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.permutations import MAX_DEPTH, expand
from engine.errors import RequestError

WORD = st.text("abc019.:()", min_size=1, max_size=6)
CHOICES = st.lists(WORD, min_size=2, max_size=3, unique=True)


@given(st.lists(st.one_of(WORD, CHOICES), max_size=4))
def test_every_combination_comes_once(parts: list[str | list[str]]) -> None:
    text = " ".join(p if isinstance(p, str) else f"{{{', '.join(p)}}}" for p in parts)
    options = [[part] if isinstance(part, str) else part for part in parts]

    made = expand(text, 3**4)

    assert made == list(dict.fromkeys(" ".join(one) for one in itertools.product(*options)))


@given(st.text("ab{},\\ ", max_size=40), st.integers(1, 20))
def test_whatever_is_typed_is_expanded_within_the_bound_or_refused(text: str, most: int) -> None:
    try:
        made, told = expand(text, most), ""
    except RequestError as error:
        made, told = [], str(error)
    assert len(set(made)) == len(made) <= most
    assert made or "Allowed: at most" in told


@given(st.text("ab(), .\\", max_size=40))
def test_text_without_braces_stays_as_it_is(text: str) -> None:
    assert expand(text, 1) == [text]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (
            "a {red, blue} {cat, dog}",
            ["a red cat", "a red dog", "a blue cat", "a blue dog"],
        ),
        ("a {big {red, blue}, small} cat", ["a big red cat", "a big blue cat", "a small cat"]),
        ("{a, b} --ar {1:1, 16:9}", [f"{x} --ar {y}" for x in "ab" for y in ("1:1", "16:9")]),
        ("a {red,} cat", ["a red cat", "a cat"]),
        ("{a, a}", ["a"]),
        ("a {curly} word", ["a {curly} word"]),
        ("}{", ["}{"]),
        ("{a, b", ["{a, b"]),
        (r"\{a, b\}", ["{a, b}"]),
        (r"{a\, b, c}", ["a, b", "c"]),
        ("{{a, b}}", ["{a}", "{b}"]),
        ("", [""]),
    ],
)
def test_permutations_as_people_write_them(text: str, made: list[str]) -> None:
    assert expand(text, 10) == made


def test_too_many_are_refused_with_how_many_there_are() -> None:
    with pytest.raises(RequestError, match=r"'12 combinations' is not allowed\. Allowed: at most"):
        expand("{1,2,3} {a,b} {x,y}", 10)


@pytest.mark.parametrize(
    "text",
    ["{a,b}" * 400, "{a," * (MAX_DEPTH + 1) + "}" * (MAX_DEPTH + 1), "{" * 3000 + "}" * 3000],
)
def test_what_would_take_for_ever_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="at most"):
        expand(text, 10)


def test_a_long_text_of_lone_braces_is_words() -> None:
    assert expand("{" * 6000, 10) == ["{" * 6000]
    assert expand("}," * 3000, 10) == ["}," * 3000]
