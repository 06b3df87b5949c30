"""Blocked words are found however they are disguised, and only whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.blocked_words import LONGEST, MOST, fold, found, read_words
from engine.errors import RequestError


@pytest.mark.parametrize(
    "text",
    [
        "gore",
        "some GORE here",
        "GoRe!",
        "gore, blood",
        "\uff47\uff4f\uff52\uff45",  # fullwidth
        "g\u200bo\u200dr\u2060e",  # zero-width
        "g\u00adore",  # soft hyphen
        "go\ufe0fre",  # variation selector
        "g\u034fore",
        "\u202egore\u202c",
        "(go)re",
        "((gore:1.3))",
        "[gore]",
        "g\\(ore",
        "<lora:gore:1>",
    ],
)
def test_a_word_is_found_in_every_disguise(text: str) -> None:
    assert found(("gore",), text) == "gore"


@pytest.mark.parametrize("text", ["", "gored", "Gregore", "go re", "gore_x", "g.o.r.e", "1gore"])
def test_parts_of_other_words_are_not(text: str) -> None:
    assert found(("gore",), text) is None


def test_several_words_are_one_where_the_admin_wrote_them_so() -> None:
    words = read_words("Red  Flag, ,red flag,STRASSE,\u200b")
    assert words == ("red flag", "strasse")
    assert found(words, "a red\n\tFLAG") == "red flag"
    assert found(words, "die Stra\u00dfe") == "strasse"
    assert found(words, "a flag, red") is None


@pytest.mark.parametrize("word", ["a.c", "a|b", "(", "c++", "\\w"])
def test_a_word_is_no_pattern(word: str) -> None:
    assert found(read_words(word), "abc") is None


def test_too_many_and_too_long_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(RequestError, match=f"at most {MOST}"):
        read_words(",".join(f"w{number}" for number in range(MOST + 1)))
    with pytest.raises(RequestError, match=f"at most {LONGEST} characters"):
        read_words("x" * (LONGEST + 1))


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(alphabet="abcXYZ\u00df\uff21", min_size=1, max_size=9), st.data())
def test_invisible_characters_and_capitals_hide_nothing(word: str, data: st.DataObject) -> None:
    unseen = st.sampled_from(["", "\u200b", "\u200c", "\u2060", "\ufeff", "\u00ad", "\ufe0e"])
    hidden = "".join(data.draw(unseen) + letter for letter in word.upper())
    assert found(read_words(word), f"x {hidden} y") == fold(word)


@pytest.mark.parametrize(
    ("word", "text", "is_found"),
    [
        ("gor*", "gory details", True),
        ("gor*", "a gorilla", True),
        ("gor*", "gor", True),
        ("gor*", "kilgore", False),
        ("*gore", "kilgore was here", True),
        ("*gore", "gored", False),
        ("*gor*", "kilgored", True),
        ("*gor*", "g o r", False),
    ],
)
def test_a_star_stands_for_any_letters(word: str, text: str, is_found: bool) -> None:
    (read,) = read_words(word)

    assert (found((read,), text) == read) is is_found


@pytest.mark.parametrize("word", ["*", "**", "g*", "*g", "g*re", "*g*r*"])
def test_a_star_that_blocks_too_much_or_means_nothing_is_refused(word: str) -> None:
    with pytest.raises(RequestError, match="beginning or end"):
        read_words(word)


def test_stars_cost_no_time_however_long_the_text() -> None:
    words = read_words(",".join(f"*a{number}b*" for number in range(100)))

    assert found(words, "a" * 4000) is None
