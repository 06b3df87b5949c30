"""A place's rules as admins write them, and what follows for members; pure."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import policy, replies_rules
from bot.records import Origin, Owner
from bot.rules import (
    MOST_NAMED,
    REASON_LENGTH,
    TITLES,
    Block,
    Nsfw,
    Rules,
    Standing,
    Usage,
    changes,
    day_of,
    read_mentions,
    read_reason,
)
from engine.errors import RequestError
from tests.records_kit import a_job, a_request
from tests.test_policy import mode

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
KNOWN = [("11", "pictures"), ("12", "Art"), ("13", "13")]
BLOCK = Block("spam", "Mod", NOON)
HERE = Origin("discord", "discord:1", channels=frozenset({"5", "50"}), is_restricted=False)
ADA = Owner("discord:1", "Ada", frozenset({"artists", "7"}))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("<#11>", ("11",)),
        ("<#11><#12>", ("11", "12")),
        ("<#12>, 11 <#12>", ("12", "11")),
        ("#pictures ART", ("11", "12")),
        ("13", ("13",)),
        ("all", ()),
        (" ALL ", ()),
    ],
)
def test_channels_are_read_as_mentions_numbers_or_names(text: str, chosen: tuple[str, ...]) -> None:
    assert read_mentions("channels", text, "#", KNOWN) == chosen


@pytest.mark.parametrize("text", ["", "<#14>", "<@&11>", "none", "all <#11>", "<#11>x"])
def test_what_is_no_channel_of_the_server_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="channels of this server, or the word all"):
        read_mentions("channels", text, "#", KNOWN)


def test_too_many_are_refused() -> None:
    known = [(str(number), f"c{number}") for number in range(MOST_NAMED + 1)]
    with pytest.raises(RequestError, match=f"at most {MOST_NAMED}"):
        read_mentions("channels", " ".join(ident for ident, _ in known), "#", known)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        chosen = read_mentions("channels", text, "#", KNOWN)
    except RequestError:
        return
    assert set(chosen) <= {ident for ident, _ in KNOWN}


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert read_reason(" a\n b ") == "a b"
    assert len(read_reason("x" * REASON_LENGTH)) == REASON_LENGTH
    with pytest.raises(RequestError, match="at most 300"):
        read_reason("x" * (REASON_LENGTH + 1))


def test_every_setting_has_a_title_and_every_change_a_sentence() -> None:
    after = Rules(
        ("5",), ("7",), 1, 2, 3, ("gore",), Nsfw.SPOILER, "9", (("anime", ("7", "8")),), 10
    )

    assert set(TITLES) == {field.name for field in fields(Rules)}
    assert len(changes(Rules(), after)) == len(TITLES)
    assert changes(after, after) == []
    assert "Channels to draw in: all → <#5>" in changes(Rules(), after)
    assert "Modes for some roles: none → anime: <@&7>, <@&8>" in changes(Rules(), after)


def test_all_settings_fit_into_a_message_however_long() -> None:
    words = tuple(f"{number:050}" for number in range(200))
    many = tuple(str(10**18 + number) for number in range(MOST_NAMED))
    assert len(replies_rules.rules(Rules(many, many, words=words))) <= 2000


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        (Rules(), False),
        (Rules(roles=("7",)), False),
        (Rules(roles=("8",)), True),
        (Rules(channels=("5",)), False),
        (Rules(channels=("50",)), False),
        (Rules(channels=("6",)), True),
    ],
)
def test_roles_and_channels_count_by_id(rules: Rules, refused: bool) -> None:
    reason = policy.draw_refusal(Standing(rules), mode(), ADA, HERE)
    assert (reason is not None) == refused


def test_the_order_is_block_role_channel() -> None:
    rules = Rules(channels=("6",), roles=("8",))
    assert "blocked" in (policy.draw_refusal(Standing(rules, BLOCK), mode(), ADA, HERE) or "")
    assert "role" in (policy.draw_refusal(Standing(rules), mode(), ADA, HERE) or "")
    held = replace(ADA, roles=frozenset({"8"}))
    assert "channel" in (policy.draw_refusal(Standing(rules), mode(), held, HERE) or "")


@pytest.mark.parametrize(
    ("is_restricted", "place", "nsfw", "refused", "covered"),
    [
        (False, "discord:1", Nsfw.RESTRICTED, True, True),
        (True, "discord:1", Nsfw.RESTRICTED, False, False),
        (False, "discord:1", Nsfw.SPOILER, False, True),
        (True, "discord:1", Nsfw.SPOILER, False, False),
        (False, None, Nsfw.SPOILER, True, True),  # a direct message
        (None, None, Nsfw.RESTRICTED, False, False),  # the page, the command line
    ],
)
def test_nsfw_modes_by_place(
    is_restricted: bool | None, place: str | None, nsfw: Nsfw, refused: bool, covered: bool
) -> None:
    origin = replace(HERE, place=place, is_restricted=is_restricted)
    dark = replace(mode(), nsfw=True)

    assert (policy.nsfw_refusal(Rules(nsfw=nsfw), dark, origin) is not None) == refused
    assert policy.nsfw_refusal(Rules(nsfw=nsfw), mode(), origin) is None


@pytest.mark.parametrize(
    ("noted", "is_now", "is_nsfw"),
    [
        (True, True, True),
        (True, False, True),  # the name is another mode's now
        (True, None, True),
        (False, True, True),
        (False, False, False),
        (False, None, False),
        (None, True, True),
        (None, False, False),
        (None, None, True),  # of before it was noted, and its mode is gone
    ],
)
def test_nsfw_pictures_are_told_by_their_mode_as_it_was_and_as_it_is(
    noted: bool | None, is_now: bool | None, is_nsfw: bool
) -> None:
    job = a_job(request=a_request(nsfw=noted))
    now = None if is_now is None else replace(mode(), nsfw=is_now)
    plain, adults = (replace(HERE, is_restricted=restricted) for restricted in (False, True))

    def refused(rules: Rules, origin: Origin) -> bool:
        return policy.show_refusal(Standing(rules), job, now, ADA, origin) is not None

    assert policy.is_nsfw(job.request, now) == is_nsfw
    assert policy.is_covered(job.request, now, plain) == is_nsfw
    assert not policy.is_covered(job.request, now, adults)
    assert refused(Rules(), plain) == is_nsfw
    assert not refused(Rules(), adults)
    assert not refused(Rules(nsfw=Nsfw.SPOILER), plain)
    assert refused(Rules(nsfw=Nsfw.SPOILER), replace(plain, place=None)) == is_nsfw


@given(limit=st.integers(1, 50), used=st.integers(0, 60), asked=st.integers(1, 10))
def test_a_days_pictures_are_never_exceeded(limit: int, used: int, asked: int) -> None:
    reason = policy.usage_refusal(Rules(pictures=limit), Usage(pictures=used), asked, NOON)
    assert (reason is not None) == (used + asked > limit)


@given(st.integers(1, 86_400), st.floats(0, 90_000))
def test_a_cooldown_ends_when_its_seconds_are_over(cooldown: int, passed: float) -> None:
    since = timedelta(seconds=passed)
    usage = Usage(last_at=NOON - since)
    reason = policy.usage_refusal(Rules(cooldown=cooldown), usage, 1, NOON)
    assert (reason is not None) == (since < timedelta(seconds=cooldown))


def test_cooldown_comes_before_quota() -> None:
    rules = Rules(waiting=1, pictures=1, cooldown=60)
    usage = Usage(1, 1, NOON)
    assert "every 60 s" in (policy.usage_refusal(rules, usage, 1, NOON) or "")


def test_without_limits_nobody_is_refused() -> None:
    assert policy.usage_refusal(Rules(), Usage(10**6, 10**6, NOON), 10**6, NOON) is None


def test_a_day_begins_at_midnight_utc_wherever_the_clock_stands() -> None:
    assert day_of(NOON) == datetime(2026, 3, 4, tzinfo=UTC)
    assert day_of(datetime.fromisoformat("2026-03-04T01:00:00+05:00")) == datetime(
        2026, 3, 3, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("limit", "used", "asked", "refused"),
    [
        (0, 10**12, 10**12, False),
        (10, 0, 10_000_000, False),
        (10, 0, 10_000_001, True),
        (10, 9_000_000, 1_000_000, False),
        (10, 9_000_000, 1_000_001, True),
    ],
)
def test_work_of_a_day_counts_pixels_and_steps(
    limit: int, used: int, asked: int, refused: bool
) -> None:
    usage = Usage(pixel_steps=used)
    reason = policy.usage_refusal(Rules(work=limit), usage, 1, NOON, pixel_steps=asked)

    assert (reason is not None) == refused
    assert not refused or "million pixel-steps" in (reason or "")
