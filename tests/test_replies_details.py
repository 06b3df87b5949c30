"""What members read of one picture, and moderators of a report; however hostile the words."""

import re
from dataclasses import replace

import pytest

from bot.records import Kinship, Parent
from bot.replies import CONTENT_LIMIT, alt_text, outcome
from bot.replies_details import details, kin
from bot.replies_report import report
from tests.discord_kit import unescaped
from tests.records_kit import a_job, a_request, an_image, done

HOSTILE = [
    "@everyone <@1> <@&2> <#3>",
    "**" * 900,
    "[free](https://evil.example) `code` ||spoiler||",
    "\n# heading\n> quote\n- list",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.tac",
    "e\N{COMBINING ACUTE ACCENT}" * 900,
    "<t:0:R>" * 300,
]


@pytest.mark.parametrize("words", HOSTILE)
def test_no_words_become_markup_or_outgrow_a_message(words: str) -> None:
    request = a_request(prompt=words, negative_prompt=words)
    job = replace(done(a_job(request=request, note=words)), parent=Parent("p", 0, Kinship.VARY))
    job = replace(job, images=(an_image(job),))

    for text in (details(job, 3), outcome(job, [words[:0]]), report(job, 1, words, "1/2/3")):
        assert len(text) <= CONTENT_LIMIT
        bare = re.sub(r"\\.", "", text)  # what a backslash stands before is plain
        for markup in ("<@&", "<#", "<t:0", "](", "||", "\n# ", "\n> "):
            assert markup not in bare
        assert bare.count("<@") == (text.startswith("<@1> reports"))
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    assert len(alt_text(request)) <= 1024
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in alt_text(request)


def test_details_name_all_that_a_request_has() -> None:
    request = a_request(
        negative_prompt="blue", variation_seed=9, variation_strength=0.35, clip_skip=2
    )
    job = done(a_job(request=request, parent=Parent("abc", 1, Kinship.UPSCALE), note="So it was."))

    text = unescaped(details(job, 0))

    for known in (
        "128x64 · 20 steps · guidance 3 · DPM++ 2M Karras",
        "seed 7",
        "without blue",
        "LoRA y at 0.5",
        "variation seed 9 at 0.35",
        "clip skip 2",
        "picture 2 of `abc`, larger",
        "So it was.",
        "drawn in 1.5 s",
    ):
        assert known in text
    assert "models/" not in text


@pytest.mark.parametrize("kinship", Kinship)
@pytest.mark.parametrize("number", [None, 3])
def test_every_child_has_a_button_that_says_what_it_is(
    kinship: Kinship, number: int | None
) -> None:
    label = kin(a_job(parent=Parent("p", number, kinship)))

    assert 0 < len(label) <= 80
    assert label.endswith("picture 4") == (number == 3)
