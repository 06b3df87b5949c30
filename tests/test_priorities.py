"""Roles whose members' turns count more."""

from pathlib import Path

import pytest

from bot import replies_members
from bot.app import open_app
from bot.priorities import parse_weights, weight_of
from bot.records import Origin, Owner
from bot.settings import Settings, SettingsError
from engine.fair_queue import FairQueue
from engine.jobs import RequestDraft
from engine.testing import FakeExecutor


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


async def test_what_a_role_counts_outlives_a_restart_and_its_member_is_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "plain").mkdir()
    modes = tmp_path / "modes.yaml"
    modes.write_text("model_root: .\ndefault_mode: plain\nmodes:\n  plain: {model: plain}\n")
    settings = Settings(data=tmp_path / "data", modes_file=modes, role_weights={"Boosters": 2.0})
    bob = Owner("discord:1", "Bob")
    ada = Owner("discord:2", "Ada", frozenset({"Boosters"}))
    async with open_app(settings, [FakeExecutor()]) as app:
        app.pool.hold()
        asked = [
            await app.studio.submit(RequestDraft("a house"), owner, Origin("web"))
            for owner in (bob, bob, ada, ada)
        ]

    async with open_app(settings, [FakeExecutor()]) as app:
        app.pool.hold()
        recovered = await app.studio.recover()
        views = [await app.studio.view(job.id) for job in asked]

        assert [job.weight for job in recovered] == [1, 1, 2, 2]
        assert [view.position for view in views] == [1, 4, 2, 3]
        for view, told in ((views[1], False), (views[3], True)):
            own = [(view, app.studio.live.line_place(view.record.id))]
            text = replies_members.queue(own, [], 4, view.record.owner.id, None)
            assert ("By your role, your turns count 2 times as much." in text) is told
