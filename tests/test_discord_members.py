"""What members do with their own: history, show, cancel, queue, me, results, help."""

from pathlib import Path

import pytest

from engine.jobs import JobStatus
from tests.discord_double import DiscordDouble, Interaction, Message
from tests.discord_double.double import MANAGE_MESSAGES
from tests.discord_kit import Bot, running_bot, unescaped

pytest_plugins = ["tests.discord_kit"]

HOSTILE = [
    "x",
    "AAAAAAAAAAAAAAAA",
    "-" * 64,
    "'; DROP TABLE jobs; --",
    "@everyone",
    "%",
    "*" * 4000,
]


async def word(bot: Bot, asked: Interaction) -> str:
    """Returns a private answer as it is read."""
    return unescaped((await bot.discord.private_word(asked)).content)


async def draw(bot: Bot, *prompts: str, **options: object) -> list[str]:
    """Has pictures drawn one after the other and returns their ids."""
    ids = []
    for prompt in prompts:
        message = await bot.discord.picture(await bot.imagine(prompt, **options))
        ids.append(message.buttons["Again"]["custom_id"].split(":")[2])
    return ids


async def under_way(bot: Bot) -> str:
    """Waits until a job is drawn, and is known to be, and returns its id."""
    job = await bot.drawing()
    async for view in bot.app.studio.watch(job):
        if view.record.status is JobStatus.RUNNING:
            break
    return job


def pictures(folder: Path) -> list[Path]:
    return list(folder.rglob("*.png"))


def prompts_of(message: Message) -> list[str]:
    lines = message.content.splitlines()
    return [line.split("**")[1] for line in lines if line.startswith("- **")]


def ways(message: Message) -> list[str]:
    return [label for label in message.buttons if label in ("Newer", "Older")]


async def page(bot: Bot, asked: Interaction, first: str) -> Message:
    """Waits until a page begins with a prompt."""

    def look() -> Message | None:
        shown = asked.answer
        return shown if shown and prompts_of(shown)[:1] == [first] else None

    found = await bot.discord.until(look, f"the page of {first}")
    assert found is not None
    return found


# /history


async def test_history_shows_ones_own_pictures_newest_first_and_to_oneself_alone(bot: Bot) -> None:
    await draw(bot, "one", "two")
    await draw(bot, "not mine", user=bot.discord.world.add_user("eve"))

    message = await bot.discord.private_word(await bot.discord.slash("history"))

    assert prompts_of(message) == ["two", "one"]
    assert len(message.attachments) == 2
    assert list(message.buttons) == ["two", "one"]


async def test_pages_of_history_are_turned_there_and_back_also_after_a_restart(
    tmp_path: Path, discord: DiscordDouble
) -> None:
    names = [f"p{number}" for number in range(9)]
    async with running_bot(tmp_path, discord) as bot:
        await draw(bot, *names)
        asked = await discord.slash("history")
        message = await page(bot, asked, "p8")
        assert prompts_of(message) == ["p8", "p7", "p6", "p5"]
        assert ways(message) == ["Older"]

    async with running_bot(tmp_path, discord) as bot:
        message = await page(bot, await discord.click(message, "Older"), "p4")
        assert prompts_of(message) == ["p4", "p3", "p2", "p1"]
        assert ways(message) == ["Newer", "Older"]
        message = await page(bot, await discord.click(message, "Older"), "p0")
        assert prompts_of(message) == ["p0"]
        assert ways(message) == ["Newer"]
        assert len(message.attachments) == 1
        message = await page(bot, await discord.click(message, "Newer"), "p4")
        assert prompts_of(message) == ["p4", "p3", "p2", "p1"]
        message = await page(bot, await discord.click(message, "Newer"), "p8")
        assert ways(message) == ["Older"]


async def test_a_page_button_shows_whoever_presses_it_their_own_whatever_id_it_names(
    bot: Bot,
) -> None:
    await draw(bot, *(f"p{number}" for number in range(5)))
    message = await bot.discord.private_word(await bot.discord.slash("history"))
    eve = bot.discord.world.add_user("eve")

    pressed = await bot.discord.click(message, "Older", user=eve)
    await bot.discord.until(lambda: "no pictures yet" in message.content)

    assert pressed.answer is message
    assert message.attachments == []


async def test_history_of_nobody_says_how_to_begin(bot: Bot) -> None:
    assert "no pictures yet" in await word(bot, await bot.discord.slash("history"))


# /show


async def test_show_posts_a_picture_with_parameters_and_buttons(bot: Bot) -> None:
    (job,) = await draw(bot, "a red circle", values={"seed": 7, "count": 2})

    message = await bot.discord.picture(await bot.discord.slash("show", values={"id": job}))

    assert "seeds 7 to 8" in message.content
    assert len(message.attachments) == 2
    assert {"U1", "U2", "V1", "V2", "Again", "Delete"} <= set(message.buttons)


async def test_a_picture_of_this_server_is_shown_to_its_members_and_not_elsewhere(
    bot: Bot,
) -> None:
    (job,) = await draw(bot, "a red circle")
    eve = bot.discord.world.add_user("eve")
    elsewhere = bot.discord.world.add_guild("Elsewhere")

    await bot.discord.picture(await bot.discord.slash("show", values={"id": job}, user=eve))
    told = await word(
        bot, await bot.discord.slash("show", values={"id": job}, user=eve, guild=elsewhere)
    )
    direct = await word(
        bot, await bot.discord.slash("show", values={"id": job}, user=eve, direct=True)
    )

    assert told.startswith(f"job: '{job}' is not allowed.")
    assert direct == told


@pytest.mark.parametrize("job", HOSTILE)
async def test_showing_and_cancelling_what_is_no_id_is_told_in_private(bot: Bot, job: str) -> None:
    for command in ("show", "cancel"):
        told = await word(bot, await bot.discord.slash(command, values={"id": job}))

        assert told.startswith("job: ")
        assert told.endswith("is not allowed. Allowed: the id of a request.")


async def test_a_private_picture_that_is_shown_to_all_can_be_reported(bot: Bot) -> None:
    asked = await bot.imagine("a secret", values={"private": True})
    await bot.discord.until(lambda: asked.answer and asked.answer.attachments)
    (job,) = await bot.app.studio.history(f"discord:{bot.discord.user.id}")

    shown = await bot.discord.picture(await bot.discord.slash("show", values={"id": job.id}))

    assert "Report" in shown.buttons
    assert "Share" not in shown.buttons


async def test_what_others_wait_for_is_not_shown(held: Bot) -> None:
    await held.discord.answer(await held.imagine())
    job = await under_way(held)
    eve = held.discord.world.add_user("eve")

    told = await word(held, await held.discord.slash("show", values={"id": job}, user=eve))
    own = await word(held, await held.discord.slash("show", values={"id": job}))

    assert told.startswith("job: ")
    assert own.startswith("**a red circle**")


async def test_ones_pictures_are_suggested_by_their_words(bot: Bot) -> None:
    circle, square = await draw(bot, "a red circle", "a blue square")
    await draw(bot, "a red flag", user=bot.discord.world.add_user("eve"))

    everything = await bot.discord.complete("show", "id", "")
    some = await bot.discord.complete("show", "id", "red")

    assert [choice["value"] for choice in everything] == [square, circle]
    assert some == [{"name": "a red circle", "value": circle}]


async def test_a_shown_picture_can_be_deleted_by_its_owner_but_not_by_strange_moderators(
    bot: Bot, tmp_path: Path
) -> None:
    (job,) = await draw(bot, "a red circle")
    elsewhere = bot.discord.world.add_guild("Elsewhere")
    asked = await bot.discord.slash("show", values={"id": job}, guild=elsewhere)
    message = await bot.discord.picture(asked)
    mod = bot.discord.world.add_user("mod")

    told = await word(
        bot,
        await bot.discord.click(
            message, "Delete", user=mod, guild=elsewhere, permissions=MANAGE_MESSAGES
        ),
    )

    assert told == "Only ada or a moderator may delete this."
    assert pictures(tmp_path)


# /cancel


async def test_what_waits_and_runs_is_suggested_and_cancelled(held: Bot) -> None:
    shown = await held.discord.answer(await held.imagine("first"))
    job = await under_way(held)
    await held.discord.answer(await held.imagine("second"))

    choices = await held.discord.complete("cancel", "id", "")
    told = await word(held, await held.discord.slash("cancel", values={"id": job}))

    assert [choice["name"] for choice in choices] == ["drawing: first", "waiting: second"]
    assert told == "Cancelled: **first**"
    await held.discord.until(lambda: "Cancelled." in shown.content)
    assert (await held.app.store.get(job)).status is JobStatus.CANCELLED  # type: ignore[union-attr]


async def test_members_see_and_cancel_nobody_elses(held: Bot) -> None:
    await held.discord.answer(await held.imagine())
    job = await under_way(held)
    eve = held.discord.world.add_user("eve")

    choices = await held.discord.complete("cancel", "id", "", user=eve)
    told = await word(held, await held.discord.slash("cancel", values={"id": job}, user=eve))

    assert choices == []
    assert told == "Only ada or a moderator may cancel this."
    assert held.executor.running == (job,)


async def test_moderators_cancel_anybodys_in_their_server_alone(held: Bot) -> None:
    await held.discord.answer(await held.imagine())
    job = await under_way(held)
    elsewhere = held.discord.world.add_guild("Elsewhere")
    mod = {"user": held.discord.world.add_user("mod"), "permissions": MANAGE_MESSAGES}

    there = await held.discord.slash("cancel", values={"id": job}, guild=elsewhere, **mod)
    told = await word(held, there)
    nothing = await held.discord.complete("cancel", "id", "", guild=elsewhere, **mod)
    choices = await held.discord.complete("cancel", "id", "", **mod)
    done = await word(held, await held.discord.slash("cancel", values={"id": job}, **mod))

    assert told.startswith("job: ")
    assert nothing == []
    assert choices == [{"name": "drawing: ada: a red circle", "value": job}]
    assert done == "Cancelled: **a red circle**"


async def test_moderators_cancel_what_is_private_without_being_told_what_it_is(held: Bot) -> None:
    await held.discord.answer(await held.imagine("a secret", values={"private": True}))
    await under_way(held)
    mod = {"user": held.discord.world.add_user("mod"), "permissions": MANAGE_MESSAGES}

    (own,) = await held.discord.complete("cancel", "id", "")
    (choice,) = await held.discord.complete("cancel", "id", "", **mod)
    shown = await word(held, await held.discord.slash("show", values={"id": own["value"]}, **mod))
    values = {"id": choice["value"]}
    done = await word(held, await held.discord.slash("cancel", values=values, **mod))

    assert choice == {"name": "drawing: ada: a private request", "value": own["value"]}
    assert shown.startswith("job: ")
    assert done == "Cancelled: a private request"


async def test_cancelling_what_has_ended_says_so(bot: Bot) -> None:
    (job,) = await draw(bot, "a red circle")

    told = await word(bot, await bot.discord.slash("cancel", values={"id": job}))

    assert told == "This had ended already."


# /queue


async def test_the_queue_tells_who_is_before_one_and_no_prompt_of_others(held: Bot) -> None:
    eve = held.discord.world.add_user("eve")
    await held.discord.answer(await held.imagine("secret one", user=eve))
    await under_way(held)
    await held.discord.answer(await held.imagine("secret two", user=eve))
    await held.discord.answer(await held.imagine("mine"))

    told = await word(held, await held.discord.slash("queue"))
    others = await word(
        held, await held.discord.slash("queue", user=held.discord.world.add_user("grace"))
    )

    assert told.splitlines()[0] == "**Drawing: 1 of others here. Waiting: 2.**"
    assert "- **mine**: next" in told or "- **mine**: number 2: 1 member before you" in told
    assert "secret" not in told
    assert "Nothing of yours is under way." in others
    assert "mine" not in others


async def test_an_idle_queue_says_so(bot: Bot) -> None:
    told = await word(bot, await bot.discord.slash("queue"))

    assert told == "**Drawing: nothing. Waiting: 0.**\nNothing of yours is under way."


# /me


async def test_me_counts_what_is_under_way_and_what_was(bot: Bot) -> None:
    before = await word(bot, await bot.discord.slash("me"))
    await draw(bot, "one", values={"count": 2})
    await draw(bot, "two")
    await draw(bot, "not mine", user=bot.discord.world.add_user("eve"))

    told = await word(bot, await bot.discord.slash("me"))

    assert "**So far:** nothing yet" in before
    most = bot.app.settings.waiting_per_owner
    assert f"**Under way:** 0 drawing, 0 waiting of {most} at most" in told
    assert "3 pictures of 2 requests in 0 s of drawing, since <t:" in told


# /results


async def test_what_could_not_be_brought_is_had_with_results_once(held: Bot) -> None:
    place = held.discord.guild.channel_id
    await held.discord.answer(await held.imagine("lost"))
    job = await under_way(held)
    held.discord.clock.advance(minutes=16)
    held.discord.world.forbidden.add(place)
    held.executor.finish(job)
    await held.discord.until(lambda: any(c.status == 403 for c in held.discord.calls_to("send")))
    await held.app.outbox.rest()

    eve = held.discord.world.add_user("eve")
    others = await word(held, await held.discord.slash("results", user=eve))
    message = await held.discord.private_word(await held.discord.slash("results", direct=True))
    # That they were seen is noted a moment later; until then they are brought again.
    while "lost" in (again := await word(held, await held.discord.slash("results", direct=True))):
        continue

    assert others == again == "Everything of yours has arrived."
    assert prompts_of(message) == ["lost"]
    assert len(message.attachments) == 1


# /help


async def test_help_names_every_command_that_is_registered(bot: Bot) -> None:
    asked = await bot.discord.slash("help")
    await bot.discord.until(lambda: asked.original and asked.followups)
    assert asked.original
    pages = [asked.original, *asked.followups]
    told = unescaped("\n".join(page.content for page in pages))

    named = {line.split("**")[1] for line in told.splitlines()}
    commands = bot.discord.world.commands or []
    assert {command["name"] for command in commands if command["type"] == 3} <= named
    for command in commands:
        if command["type"] != 1:
            continue
        subs = [option for option in command.get("options") or [] if option["type"] == 1]
        for name in [f"{command['name']} {sub['name']}" for sub in subs] or [command["name"]]:
            assert f"/{name}" in named
    assert (
        "/mode switch** Makes a mode this server's own, or one channel's. (Manage Server)" in told
    )


async def test_no_answer_of_these_is_public(bot: Bot) -> None:
    for line in ("history", "queue", "me", "results", "help"):
        await bot.discord.private_word(await bot.discord.slash(line))

    seen = bot.discord.world.messages.values()
    assert all(message.ephemeral for message in seen)
