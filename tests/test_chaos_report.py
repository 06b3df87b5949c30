"""What `tests.chaos` reports: nothing of a run that went well, and each thing that went wrong."""

import asyncio
import io
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot import views
from bot.image_folder import ImageFolder
from bot.store import Store
from engine.images import encode_png, request_parameters
from engine.jobs import GeneratedImage, GenerationResult
from tests.chaos import Asked, Chaos
from tests.discord_double import DiscordDouble, Message
from tests.records_kit import ASKED_AT, a_job, a_request, done

SEEDS = (0, 1)


@dataclass
class Run:
    """A run that is over, as if a bot had answered everybody."""

    chaos: Chaos
    undisturbed: dict[int, Image.Image]

    @property
    def messages(self) -> list[Message]:
        return list(self.chaos.discord.world.messages.values())

    def report(self) -> list[str]:
        """Returns the names of what the report complains of."""
        self.chaos.examine(self.undisturbed)
        return [complaint.partition(":")[0] for complaint in self.chaos.report.wrong]

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.chaos.bot.data / "dreamlab.db")) as db:
            assert db.execute(statement).rowcount == 1
            db.commit()


@pytest.fixture
async def run(tmp_path: Path) -> Run:
    discord = DiscordDouble()
    chaos = Chaos(discord, tmp_path / "run", random.Random(0))  # noqa: S311 # no secret
    run = Run(chaos, {})
    images = ImageFolder(chaos.bot.data / "images")
    async with await Store.open(chaos.bot.data / "dreamlab.db") as store:
        for seed in SEEDS:
            request = a_request(seed=seed, width=8, height=8)
            job = a_job("discord", request=request)
            png = encode_png(
                np.full((8, 8, 3), 99 * seed, np.uint8), request_parameters(request, seed)
            )
            result = GenerationResult(job.id, (GeneratedImage(png, seed, 8, 8),), 1.0, "cpu")
            kept = await asyncio.to_thread(images.keep, result, date(2026, 1, 2))
            await store.add(job)
            await store.settle(done(job), kept, carried=True)
            await store.claim_due(ASKED_AT, ASKED_AT + timedelta(hours=1), ("discord",), 9)
            await store.delivered(job.id, ASKED_AT)
            run.undisturbed[seed] = Image.open(io.BytesIO(png))
            channel = discord.guild.channel_id
            interaction = discord.world.open_interaction(
                2, discord.user, discord.guild, channel, 2**20
            )
            ended = (await store.get(job.id)) or job
            answer = {"content": "drawn", "components": views.ended_view(ended).to_components()}
            interaction.original = discord.world.create(
                channel, answer, {"files[0]": ("dream.png", png)}, 2**20
            )
            interaction.acknowledged = 4
            chaos._asked.append(Asked(seed, request.prompt, interaction))
    return run


async def test_nothing_is_reported_where_all_went_well(run: Run) -> None:
    assert run.report() == []
    assert (run.chaos.report.requests, run.chaos.report.pictures) == (2, 2)


def post_twice(run: Run) -> None:
    world, first = run.chaos.discord.world, run.messages[0]
    files = {"files[0]": ("dream.png", first.attachments[0].content)}
    answer = {"content": "drawn", "components": first.components}
    world.create(first.channel_id, answer, files, 2**20)


def delete_an_answer(run: Run) -> None:
    run.messages[0].deleted = True


def take_a_picture_out(run: Run) -> None:
    run.messages[0].attachments = []


def change_a_picture(run: Run) -> None:
    run.undisturbed[1] = Image.new("RGB", (8, 8), (101, 99, 99))


def leave_a_row_running(run: Run) -> None:
    run.change("UPDATE jobs SET status = 'running', finished_at = NULL WHERE sequence = 1")


def leave_a_delivery_open(run: Run) -> None:
    run.change("UPDATE outbox SET delivered_at = NULL WHERE rowid = 1")


def leave_a_file(run: Run) -> None:
    (run.chaos.bot.data / "images" / "2026-01-02" / "nobodys.png").touch()


def lose_a_file(run: Run) -> None:
    next((run.chaos.bot.data / "images").rglob("*.png")).unlink()


def forget_a_row(run: Run) -> None:
    run.change("DELETE FROM images WHERE rowid = 1")


def forget_a_request(run: Run) -> None:
    delete_an_answer(run)
    run.change("DELETE FROM outbox WHERE rowid = 1")
    run.change("DELETE FROM images WHERE rowid = 1")
    run.change("DELETE FROM jobs WHERE sequence = 1")


@pytest.mark.parametrize(
    ("tamper", "complaints"),
    [
        (post_twice, ["doubled"]),
        (delete_an_answer, ["lost"]),
        (take_a_picture_out, ["lost"]),
        (change_a_picture, ["different"]),
        (leave_a_row_running, ["unended"]),
        (leave_a_delivery_open, ["unended"]),
        (leave_a_file, ["orphaned"]),
        (lose_a_file, ["orphaned"]),
        (forget_a_row, ["orphaned"]),
        (forget_a_request, ["lost", "orphaned"]),
    ],
)
async def test_each_thing_that_went_wrong_is_reported(
    run: Run, tamper: Callable[[Run], None], complaints: list[str]
) -> None:
    tamper(run)

    assert run.report() == complaints


async def test_who_was_never_answered_and_is_not_stored_may_ask_again(run: Run) -> None:
    forget_a_request(run)
    run.chaos._asked[0].interaction.acknowledged = None

    assert run.report() == ["orphaned"]
    assert run.chaos.report.unheard == 1


async def test_who_was_refused_in_words_counts_on_nothing(run: Run) -> None:
    forget_a_request(run)
    interaction = run.chaos._asked[0].interaction
    interaction.original = run.chaos.discord.world.create(
        interaction.channel_id, {"content": "The queue is full.", "flags": 64}, {}, 2**20
    )

    assert run.report() == ["orphaned"]
    assert run.chaos.report.refused == 1


@pytest.mark.parametrize("times", [0, 1, 2])
async def test_a_request_that_is_given_up_is_told_once_wherever_it_is_told(
    run: Run, times: int
) -> None:
    world, first = run.chaos.discord.world, run.messages[0]
    run.change("UPDATE jobs SET status = 'failed' WHERE sequence = 1")
    delete_an_answer(run)
    answer = {
        "content": "Dream Lab crashed each time, so it is not tried again.",
        "components": first.components,
    }
    for _ in range(times):
        world.create(first.channel_id, answer, {}, 2**20)

    assert run.report() == ([] if times == 1 else ["lost"])
    assert run.chaos.report.blamed == (times == 1)
