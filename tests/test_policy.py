"""Who may draw with which mode, and what the others are told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import policy
from bot.records import Owner
from engine.jobs import ModelSpec
from modes.mode_config import ModeConfig
from tests.records_kit import a_job


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
