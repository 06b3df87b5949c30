"""Who may draw with which mode, and what the others are told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import policy
from bot.errors import NotAllowedError
from bot.records import Origin, Owner
from engine.jobs import JobStatus, ModelSpec, RequestDraft
from modes.mode_config import ModeConfig
from tests.records_kit import a_job
from tests.test_studio import ADA, BOB, DISCORD, MODES, WEB, Room, a_room


def mode(*roles: str) -> ModeConfig:
    return ModeConfig("dark", ModelSpec(Path("x")), title="Dark", allowed_roles=roles)


def asker(*roles: str, is_trusted: bool = False) -> Owner:
    return Owner("discord:1", "Ada", frozenset(roles), is_trusted)


def test_a_mode_without_roles_is_everybodys() -> None:
    assert policy.mode_refusal(mode(), asker()) is None


@pytest.mark.parametrize("held", [("Artists",), ("ARTISTS", "x"), ("7",), ("x", "7")])
def test_one_of_the_roles_is_enough_by_name_or_id(held: tuple[str, ...]) -> None:
    assert policy.mode_refusal(mode("Artists", "7"), asker(*held)) is None


@pytest.mark.parametrize("held", [(), ("Artist",), ("77",), ("Artists, 7",), ("",), ("@everyone",)])
def test_without_any_of_them_it_is_refused_with_the_names(held: tuple[str, ...]) -> None:
    said = policy.mode_refusal(mode("Artists", "7", "VIP"), asker(*held))
    assert said == "The mode Dark is for members with the role Artists or VIP."


def test_ids_alone_are_not_told_to_people() -> None:
    said = policy.mode_refusal(mode("80351110224678912"), asker())
    assert said == "The mode Dark is for members with certain roles."


def test_who_sits_at_the_machine_may_use_every_mode() -> None:
    assert policy.mode_refusal(mode("Artists"), asker(is_trusted=True)) is None


def test_what_is_usable_stays_in_its_order() -> None:
    modes = [mode(), mode("a"), mode("b"), mode("B", "a")]
    assert policy.usable(modes, asker("b")) == [modes[0], modes[2], modes[3]]
    assert policy.usable(modes, asker(is_trusted=True)) == modes


@given(st.lists(st.text(max_size=5)), st.lists(st.text(max_size=5)))
def test_a_role_is_held_or_the_mode_refused(allowed: list[str], held: list[str]) -> None:
    shared = {role.casefold() for role in allowed} & {role.casefold() for role in held}
    refused = policy.mode_refusal(mode(*allowed), asker(*held)) is not None
    assert refused == (bool(allowed) and not shared)


def test_roles_and_trust_are_neither_shown_nor_compared() -> None:
    assert asker("a") == asker("b", is_trusted=True)
    assert hash(asker("a")) == hash(asker())
    assert "secret" not in repr(asker("secret"))


def test_a_job_is_its_askers_and_the_moderators() -> None:
    job = a_job(owner="discord:1")
    said = policy.job_refusal(job, Owner("discord:2", "Bob"), "cancel", moderator=False)
    assert said == "Only Ada or a moderator may cancel this."
    assert policy.job_refusal(job, Owner("discord:2", "Bob"), "cancel", moderator=True) is None
    assert policy.job_refusal(job, Owner("discord:1", "Eve"), "cancel", moderator=False) is None


EVE = Owner("discord:9", "Eve")


@pytest.mark.parametrize(
    ("address", "channels", "is_met"),
    [
        ({"channel_id": 7}, {"7"}, True),
        ({"channel_id": 7}, {"8"}, False),
        ({"channel_id": 7, "private": True}, {"7"}, False),
        ({"channel_id": None}, {"None"}, False),
        ({}, {"None"}, False),
    ],
)
def test_what_was_asked_for_in_a_chat_that_is_no_place_is_seen_there_alone(
    address: dict[str, object], channels: set[str], is_met: bool
) -> None:
    job = a_job("discord", origin=Origin("discord", None, address))
    here = Origin("discord", None, channels=frozenset(channels))
    assert policy.is_met(job, EVE, here) is is_met
    assert policy.is_met(job, job.owner, here)


def test_what_was_asked_for_in_a_place_is_seen_in_all_of_it() -> None:
    job = a_job("discord", address={"channel_id": 7})
    assert policy.is_met(job, EVE, Origin("discord", "discord:1", channels=frozenset({"8"})))
    assert not policy.is_met(job, EVE, Origin("discord", "discord:2", channels=frozenset({"8"})))


# The studio holds to it, whatever the front end

ARTIST = Owner("discord:7", "Vincent", frozenset({"artists"}))
HOST = Owner("web:local", "you", is_trusted=True)
CLOSED = MODES.replace("{model: other,", "{model: other, allowed_roles: [Artists],")
ASKED = RequestDraft("x", mode="other", seed=7)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """A studio whose mode `other` is for artists."""
    async with a_room(tmp_path, modes=CLOSED) as room:
        yield room


@pytest.mark.parametrize("owner", [ARTIST, HOST])
async def test_who_has_the_role_submits_repeats_varies_and_switches(
    room: Room, owner: Owner
) -> None:
    job = await room.ended(await room.studio.submit(ASKED, owner, WEB))
    again = await room.ended(await room.studio.remaker.again(job.id, owner, WEB))
    varied = await room.ended(await room.studio.remaker.again(again.id, owner, WEB, vary=True))
    assert {job.status, again.status, varied.status} == {JobStatus.DONE}
    assert (await room.studio.choices.switch_mode("other", "discord:1", owner)).name == "other"


async def test_submitting_without_the_role_is_refused_and_nothing_is_stored(room: Room) -> None:
    with pytest.raises(NotAllowedError, match="for members with the role Artists"):
        await room.studio.submit(ASKED, ADA, WEB)

    assert await room.studio.history(ADA.id) == []


async def test_a_places_mode_is_no_way_around_it(room: Room) -> None:
    await room.studio.choices.switch_mode("other", "discord:1", ARTIST)

    with pytest.raises(NotAllowedError, match="Artists"):
        await room.studio.submit(RequestDraft("x"), ADA, DISCORD)

    assert (await room.studio.submit(RequestDraft("x"), ADA, WEB)).request.mode == "small"


@pytest.mark.parametrize("vary", [False, True])
async def test_repeating_and_varying_anothers_picture_without_the_role_is_refused(
    room: Room, vary: bool
) -> None:
    job = await room.ended(await room.studio.submit(ASKED, ARTIST, WEB))

    with pytest.raises(NotAllowedError, match="Artists"):
        await room.studio.remaker.again(job.id, BOB, WEB, vary=vary)

    assert await room.studio.history(BOB.id) == []


async def test_a_role_that_was_lost_counts_no_longer(room: Room) -> None:
    job = await room.ended(await room.studio.submit(ASKED, ARTIST, WEB))

    with pytest.raises(NotAllowedError):
        await room.studio.remaker.again(job.id, Owner(ARTIST.id, ARTIST.name), WEB)


@pytest.mark.parametrize("place", [None, "discord:1"])
async def test_switching_without_the_role_is_refused_and_changes_nothing(
    room: Room, place: str | None
) -> None:
    with pytest.raises(NotAllowedError, match="Artists"):
        await room.studio.choices.switch_mode("other", place, ADA)

    assert (await room.studio.choices.mode_of(place)).name == "small"
    assert room.pool.get_current_mode() == "small"


async def test_what_was_asked_with_the_role_is_drawn_after_a_restart(tmp_path: Path) -> None:
    async with a_room(tmp_path, modes=CLOSED, hold=True) as before:
        job = await before.studio.submit(ASKED, ARTIST, WEB)
    async with a_room(tmp_path, modes=CLOSED) as after:
        await after.studio.recover()
        assert (await after.ended(job)).status is JobStatus.DONE
