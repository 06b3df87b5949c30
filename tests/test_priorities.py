"""Roles whose members' turns count more."""

import pytest

from bot.priorities import parse_weights, weight_of
from bot.records import Owner
from bot.settings import Settings, SettingsError
from engine.fair_queue import FairQueue


def test_weights_are_read_by_role() -> None:
    assert parse_weights("") == {}
    assert parse_weights(" Boosters = 2,80351110224678912=0.5, a=b=3 ,") == {
        "Boosters": 2.0,
        "80351110224678912": 0.5,
        "a=b": 3.0,
    }


@pytest.mark.parametrize(
    "text", ["Boosters", "=2", "a=", "a=x", "a=0", "a=-1", "a=11", "a=nan", "a=inf", "a=1,a=2"]
)
def test_what_is_no_weight_is_refused_by_its_setting(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_weights(text)
    with pytest.raises(SettingsError, match="ROLE_WEIGHTS"):
        Settings.load(environ={"ROLE_WEIGHTS": text})


def test_the_best_role_counts_and_who_has_none_is_a_member() -> None:
    weights = Settings.load(environ={"ROLE_WEIGHTS": "Boosters=2, Slow=0.5, 42=3"}).role_weights

    def weight(*roles: str) -> float:
        return weight_of(Owner("discord:1", "Ada", frozenset(roles)), weights)

    assert weight() == weight("Artists") == 1
    assert weight("Boosters", "Slow", "Artists") == 2
    assert weight("Boosters", "42") == 3
    assert weight("Slow") == 0.5


def test_twice_the_weight_is_twice_the_turns() -> None:
    queue = FairQueue()
    for number in range(30):
        queue.push(f"ada {number}", "ada", 100, 2.0, group="server")
        queue.push(f"bob {number}", "bob", 100, 1.0, group="server")

    first = [queue.pop().owner for _ in range(30)]

    assert first.count("ada") == pytest.approx(20, abs=1)
