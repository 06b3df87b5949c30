"""LoRAs that people ask for: tags out of prompts, names into files, never a path of theirs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.jobs import LoraChoice, LoraSpec
from modes.lora_choices import add_tags, laid_over, read_list, read_tags

OFFERED = {"snow": Path("/l/snow.safetensors"), "Night v2": Path("/l/n.v2.safetensors")}


def laid(
    *choices: LoraChoice, own: tuple[LoraSpec, ...] = (), most: int = 3
) -> tuple[LoraSpec, ...]:
    return laid_over(own, choices, OFFERED, most, 2.0)


def refused(*choices: LoraChoice, most: int = 3) -> RequestError:
    with pytest.raises(RequestError) as caught:
        laid(*choices, most=most)
    assert caught.value.field == "lora"
    str(caught.value).encode()
    return caught.value


# Tags


@pytest.mark.parametrize(
    ("prompt", "words", "choices"),
    [
        ("a fox", "a fox", []),
        ("a fox <lora:snow>", "a fox", [("snow", 1.0)]),
        ("<lora:snow:0.8> a fox", "a fox", [("snow", 0.8)]),
        ("a <lora:snow:-.5>fox", "a fox", [("snow", -0.5)]),
        ("a fox, <lora:snow>, red", "a fox, red", [("snow", 1.0)]),
        ("a fox,<lora:a><lora:b:2>,red", "a fox, red", [("a", 1.0), ("b", 2.0)]),
        ("<lora:a>, a fox", "a fox", [("a", 1.0)]),
        ("a fox<lora:a>.", "a fox.", [("a", 1.0)]),
        ("a <LoRA: Night v2 : 1 > fox", "a fox", [("Night v2", 1.0)]),
        ("<lora:a:1><lora:a:0.5>x", "x", [("a", 1.0), ("a", 0.5)]),
        ("<lora:a:1e-3>x", "x", [("a", 0.001)]),
        ("<lora:日本>x", "x", [("日本", 1.0)]),
        # No tags, and so words.
        ("a < b > c", "a < b > c", []),
        ("<lora:snow", "<lora:snow", []),
        ("<hypernet:a:1> x", "<hypernet:a:1> x", []),
    ],
)
def test_tags_are_taken_out_of_the_words(
    prompt: str, words: str, choices: list[tuple[str, float]]
) -> None:
    assert read_tags(prompt) == (words, tuple(LoraChoice(*choice) for choice in choices))


@pytest.mark.parametrize(
    "tag",
    [
        "<lora:>",
        "<lora: >",
        "<lora::1>",
        "<lora:a:>",
        "<lora:a:much>",
        "<lora:a:nan>",
        "<lora:a:inf>",
        "<lora:a:0x1>",
        "<lora:a:1_0>",
        "<lora:a:1:0.5>",
        "<lora:a:٣>",
        f"<lora:{'a' * 101}>",
    ],
)
def test_a_tag_that_is_written_wrong_is_refused_with_how_it_is_written(tag: str) -> None:
    with pytest.raises(RequestError, match=r"<lora:name:0\.8>"):
        read_tags(f"a fox {tag}")


def test_an_overlong_number_is_too_strong_rather_than_infinite() -> None:
    _, choices = read_tags("<lora:snow:9e999>x")
    assert "from -2 to 2" in refused(*choices).allowed


@given(st.text(alphabet="<>:lora ,a1.", max_size=60))
def test_any_text_is_read_or_refused_and_no_tag_is_left(text: str) -> None:
    try:
        words, choices = read_tags(text)
    except RequestError:
        return
    assert read_tags(words)[1] == () or "<" in words.replace("<lora:", "", 1)
    assert bool(choices) or words == text


@given(
    st.lists(
        st.builds(
            LoraChoice,
            st.sampled_from(["a", "b c", "d.v1"]),
            st.floats(-10, 10).map(lambda strength: strength + 0.0),
        ),
        max_size=5,
    )
)
def test_what_is_added_to_a_prompt_is_read_back_and_added_once(choices: list[LoraChoice]) -> None:
    tagged = add_tags("a fox <lora:b c:0.5>", choices)
    words, read = read_tags(tagged)
    assert words == "a fox"
    last = {"b c": 0.5} | {choice.name: choice.strength for choice in choices}
    assert {choice.name: choice.strength for choice in read} == last
    assert add_tags(tagged, read) == tagged


def test_a_list_is_read_with_and_without_strengths() -> None:
    assert read_list("snow:0.8, Night v2,") == (LoraChoice("snow", 0.8), LoraChoice("Night v2"))
    with pytest.raises(RequestError, match=r"name or name:0\.8"):
        read_list("snow:much")


# Names


def test_a_name_becomes_the_file_that_is_offered_under_it() -> None:
    assert laid(LoraChoice("snow", 0.8), LoraChoice("night V2")) == (
        LoraSpec(Path("/l/snow.safetensors"), 0.8, "snow"),
        LoraSpec(Path("/l/n.v2.safetensors"), 1.0, "n_v2"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "other",
        "",
        "../snow",
        "/l/snow.safetensors",
        "/etc/passwd",
        "snow.safetensors",
        "..\\snow",
        "snow\0",
        "\ud800",
        "x" * 5000,
        None,
        3,
        ["snow"],
        Path("snow"),
    ],
    ids=ascii,
)
def test_what_is_not_offered_is_refused_with_what_is(name: object) -> None:
    error = refused(LoraChoice(name))  # type: ignore[arg-type] # hostile on purpose
    assert error.allowed in ("Night v2, snow", "the name of a LoRA")


def test_where_nothing_is_offered_that_is_said() -> None:
    with pytest.raises(RequestError, match="none in this mode"):
        laid_over((), [LoraChoice("snow")], {}, 3, 2.0)


def test_of_thousands_a_refusal_names_a_few() -> None:
    offered = {f"l{number:04}": Path(f"{number}") for number in range(3000)}
    with pytest.raises(RequestError) as caught:
        laid_over((), [LoraChoice("x")], offered, 3, 2.0)
    assert caught.value.allowed.endswith("l0019 and 2980 more")


@pytest.mark.parametrize(
    "strength", [float("nan"), float("inf"), -2.01, 2.01, True, "1", None, 10**400, [1]], ids=ascii
)
def test_a_strength_that_is_not_allowed_is_refused_by_name(strength: object) -> None:
    error = refused(LoraChoice("snow", strength))  # type: ignore[arg-type] # hostile on purpose
    assert error.allowed == "a strength from -2 to 2"


def test_too_many_are_refused_however_many() -> None:
    offered = {f"l{number}": Path(f"{number}") for number in range(10_000)}
    with pytest.raises(RequestError, match=r"10000 LoRAs.*3 in one request"):
        laid_over((), [LoraChoice(name) for name in offered], offered, 3, 2.0)
    two = (LoraChoice("snow"), LoraChoice("Night v2"))
    assert refused(*two, most=1).allowed == "1 in one request"
    # The same one counts once, however it is written.
    assert len(laid(*[LoraChoice("snow"), LoraChoice("SNOW")] * 5000, most=1)) == 1


def test_the_same_one_twice_is_laid_once_as_it_was_asked_last() -> None:
    twice = (LoraChoice("snow", 0.8), LoraChoice("Night v2"), LoraChoice("Snow", 0.3))
    assert [(lora.path.stem, lora.strength) for lora in laid(*twice)] == [
        ("snow", 0.3),
        ("n.v2", 1.0),
    ]


def test_strength_zero_leaves_it_out() -> None:
    assert laid(LoraChoice("snow", 0)) == ()


def test_the_modes_own_come_first_and_give_way_to_the_strength_that_is_asked() -> None:
    own = (
        LoraSpec(Path("/l/base.safetensors"), 0.0, "base"),
        LoraSpec(Path("/l/snow.safetensors"), 0.5, "mine"),
        LoraSpec(Path("/l/other.safetensors"), 1.0, "n_v2"),
    )
    assert laid(own=own) == own
    assert laid(LoraChoice("Night v2"), LoraChoice("snow", 0.9), own=own) == (
        own[0],
        LoraSpec(Path("/l/snow.safetensors"), 0.9, "mine"),
        own[2],
        LoraSpec(Path("/l/n.v2.safetensors"), 1.0, "n_v2_2"),
    )
    assert laid(LoraChoice("snow", 0), own=own) == (own[0], own[2])
