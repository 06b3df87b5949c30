"""Parameters behind a prompt: what is read, what stays words, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.parameters import FIELDS, Typed, read_parameters
from engine.errors import RequestError

# No dash that a parameter begins with, no backslash before one, no blank that is more than one.
LETTERS = "abcXYZ 019,.:;()[]<>'\"\u00e9\u732b"
WORDS = st.text(LETTERS, max_size=40).map(lambda text: " ".join(text.split()))
VALUES = {
    "size": st.sampled_from(["16:9", "768x512", "portrait", "1.91:1"]),
    "seed": st.integers(0, 2**32 - 1).map(str),
    "steps": st.integers(1, 500).map(str),
    "count": st.integers(1, 9).map(str),
    "guidance": st.sampled_from(["7", "7.5", "0"]),
    "strength": st.sampled_from(["0.5", ".3"]),
    "negative": WORDS.filter(bool),
    "mode": st.sampled_from(["small", "Other One"]),
    "sampler": st.sampled_from(["DPM++ 2M Karras", "Euler a"]),
    "lora": st.sampled_from(["ink:0.5, pixel-art", "soft light"]),
}
ASKED = st.fixed_dictionaries({}, optional=VALUES)
DASHES = st.sampled_from(["--", "\u2014", "\u2013", "\u2212", "\u2014\u2014"])


def written(prompt: str, asked: dict[str, str], dash: str, choose: st.DataObject) -> str:
    """Returns a prompt with parameters behind it, in any order, by any of their names."""
    order = choose.draw(st.permutations(sorted(asked)))
    parts = [
        f"{dash}{choose.draw(st.sampled_from(FIELDS[field]))} {asked[field]}" for field in order
    ]
    return " ".join([prompt, *parts]).strip()


@given(WORDS, ASKED, DASHES, st.data())
def test_what_is_written_behind_a_prompt_is_read_whatever_the_dash(
    prompt: str, asked: dict[str, str], dash: str, choose: st.DataObject
) -> None:
    assert read_parameters(written(prompt, asked, dash, choose)) == Typed(prompt, asked)


@given(WORDS)
def test_words_alone_stay_as_they_are(prompt: str) -> None:
    assert read_parameters(prompt) == Typed(prompt)


@given(st.text(max_size=200))
def test_whatever_is_typed_is_read_or_refused_in_a_sentence(text: str) -> None:
    told = "Allowed: "
    try:
        read_parameters(text)
    except RequestError as error:
        told = str(error)
    assert "Allowed: " in told


@given(st.lists(st.sampled_from(["--", "\u2014", "\\", "seed", "no", "v", "x", " ", "7", "="])))
def test_what_looks_like_parameters_is_read_once_and_for_all(parts: list[str]) -> None:
    try:
        typed = read_parameters("".join(parts))
    except RequestError:
        return
    if "\\" not in parts:
        assert read_parameters(typed.prompt) == Typed(typed.prompt)


@pytest.mark.parametrize(
    ("text", "prompt", "values"),
    [
        ("a cat --seed 7 on a mat", "a cat on a mat", {"seed": "7"}),
        ("--seed 7 a cat", "a cat", {"seed": "7"}),
        ("a --SEED=7", "a", {"seed": "7"}),
        ("a --seed7", "a", {"seed": "7"}),
        ("a --size 768 x 512", "a", {"size": "768 x 512"}),
        ("a --no x --no y", "a", {"negative": "x, y"}),
        ("a --seed 1 --seed 2", "a", {"seed": "2"}),
        ("a --cfg 3", "a", {"guidance": "3"}),
        ("line\n--seed 7", "line", {"seed": "7"}),
    ],
)
def test_parameters_as_people_write_them(text: str, prompt: str, values: dict[str, str]) -> None:
    assert read_parameters(text) == Typed(prompt, values)


@pytest.mark.parametrize(
    "text",
    [
        "well-known, a -- b, x --",
        "a man \u2014 old and grey",
        "a man \u2014old and grey",
        "<lora:soft--light:1>",
        "mail--order",
        "\u2014",
        "--- rule ---",
    ],
)
def test_dashes_of_prose_are_words(text: str) -> None:
    assert read_parameters(text) == Typed(text)


def test_a_backslash_keeps_a_parameter_in_the_prompt() -> None:
    assert read_parameters(r"a sign: \--no entry") == Typed("a sign: --no entry")


@pytest.mark.parametrize("text", ["a --foo", "a --foo bar --seed 7", "--5x", "a --\u00e9t\u00e9"])
def test_an_unknown_parameter_is_named_with_those_there_are(text: str) -> None:
    with pytest.raises(RequestError, match=r"parameter: '--\w+' is not allowed. Allowed: --ar "):
        read_parameters(text)


@pytest.mark.parametrize("text", ["a --ar", "a --ar --seed 7", "a --ar=", "\u2014ar"])
def test_a_parameter_without_a_value_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestError, match=r"--ar: nothing is not allowed\. Allowed: a size such"):
        read_parameters(text)


def test_what_means_something_elsewhere_is_left_out_with_a_word() -> None:
    typed = read_parameters("a --v 6.1 cat --style raw --tile --q .5 --sref https://a https://b")

    assert typed.prompt == "a cat"
    assert typed.notes == (
        "--v, --style, --tile, --q and --sref have no meaning here and were left out",
    )
    assert read_parameters("a --niji 6").notes == ("--niji has no meaning here and was left out",)
