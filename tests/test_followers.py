"""How often a waiting answer is edited, and the address that it is edited at."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.address import Address
from bot.followers import EDIT_SECONDS, pause
from bot.records import JobView
from tests.records_kit import a_job


@pytest.mark.parametrize(
    ("position", "seconds"), [(None, 3), (1, 3), (5, 3), (6, 15), (100, 30), (101, 60), (1000, 60)]
)
def test_who_waits_further_back_is_told_less_often(position: int | None, seconds: float) -> None:
    assert pause(JobView(a_job(), position=position)) == seconds


def test_a_thousand_waiting_make_fewer_than_fifty_edits_a_second() -> None:
    rate = sum(1 / pause(JobView(a_job(), position=place)) for place in range(1, 1001))

    assert rate < 50  # Discord's limit for a bot


def test_edits_are_three_seconds_apart() -> None:
    assert min(pause(JobView(a_job(), position=place)) for place in (None, 1, 50)) >= 3.0
    assert EDIT_SECONDS >= 3.0


def an_address() -> Address:
    # Discord's documentation takes this id apart: 2016-04-30 11:18:25.796 UTC.
    return Address(1, 175928847299117063, "secret", 2, None, 3, 10)


def test_an_address_knows_when_its_token_dies() -> None:
    made = datetime(2016, 4, 30, 11, 18, 25, 796000, tzinfo=UTC)

    assert an_address().expires_at == made + timedelta(minutes=15)


def test_an_address_survives_being_stored() -> None:
    assert Address.from_plain(an_address().to_plain()) == an_address()


def test_an_address_does_not_show_its_token() -> None:
    assert "secret" not in repr(an_address())
