"""Signs of life, as a dialogue takes them; time is beats that the test counts."""

import asyncio

import pytest

from engine import messages
from engine.dialogue import Dialogue
from engine.pace import Pace
from engine.patience import BEAT_SECONDS, LOADING_SECONDS, SILENCE_SECONDS, Patience

FILES_SENT = messages.Answer(7)
"""What a worker answers beside its step loop."""


async def ended_after(
    *before: messages.Reply,
    at_each_beat: messages.Reply | None = None,
    is_aside: bool = True,
    most: float = 2 * LOADING_SECONDS,
) -> float | None:
    """Returns the seconds after which a worker on a GPU that says no more counts as hanging.

    Args:
        before: what its step loop said, oldest first; then comes a word from beside it.
        at_each_beat: what is said again and again.
        is_aside: whether that comes from beside the step loop.
        most: seconds that are tried; None is returned where it still counts as living.
    """
    beats = 0
    enough = asyncio.Event()

    async def beat() -> None:
        nonlocal beats
        beats += 1
        if at_each_beat is not None:
            dialogue.hear(at_each_beat, is_aside=is_aside)
        if beats * BEAT_SECONDS > most:
            enough.set()
            await asyncio.Event().wait()

    dialogue = Dialogue(
        "attic gpu 0",
        "cuda:0",
        send=lambda _: None,
        kill=lambda: None,
        patience=Patience(beat=beat),
        pace=Pace(),
        most_rows=None,
    )
    for word in before:
        dialogue.hear(word)
    dialogue.hear(FILES_SENT, is_aside=True)
    watching = asyncio.create_task(dialogue.watch())
    trying = asyncio.create_task(enough.wait())
    await asyncio.wait([watching, trying], return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    trying.cancel()
    return None if dialogue.death is None else beats * BEAT_SECONDS


async def test_a_load_may_take_long_also_while_files_are_located_for_others() -> None:
    ended = await ended_after(messages.Loading(), at_each_beat=FILES_SENT)

    assert ended == LOADING_SECONDS + BEAT_SECONDS


async def test_a_hanging_step_loop_is_found_also_while_files_are_sent() -> None:
    ended = await ended_after(messages.Answer(1), at_each_beat=FILES_SENT)

    assert ended == SILENCE_SECONDS["cuda"] + BEAT_SECONDS


@pytest.mark.parametrize("word", [messages.Answer(1), messages.Loading()])
async def test_any_word_of_the_step_loop_is_a_sign_of_life(word: messages.Reply) -> None:
    assert await ended_after(at_each_beat=word, is_aside=False) is None
