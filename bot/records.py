"""What the store keeps, as frozen objects: a job's row, its images, who asked and from where."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from engine.jobs import GenerationRequest, JobStatus, Progress


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asked.

    Attributes:
        id: unique over all front ends, such as ``discord:80351110224678912`` or ``web:local``.
        name: what people call them; shown, never used to decide.
        roles: names and ids of the roles that they hold where they ask. Neither stored nor
            compared: it counts at the moment of asking.
        is_trusted: whether they sit at the bot's own machine, where roles don't count. Likewise.
    """

    id: str
    name: str
    roles: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    is_trusted: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, and so where its answer goes.

    Attributes:
        front_end: ``discord``, ``web`` or ``cli``; a front end with a courier in the outbox has
            its results carried, the others fetch theirs.
        place: whose chosen mode counts, such as ``discord:<guild id>``; None has none.
        address: what the front end needs to answer (ids, a token); plain JSON values. Never
            logged, never shown.
        channels: ids of the channel and of what it is a part of. Neither stored nor compared, as
            what follows: it counts at the moment of asking.
        is_restricted: whether only adults read there; None where that is not known of a place.
    """

    front_end: str
    place: str | None = None
    address: Mapping[str, Any] = field(default_factory=dict, repr=False)
    channels: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    is_restricted: bool | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A picture that is kept.

    Attributes:
        id: can't be guessed; part of its address on the page.
        job_id: what it was drawn for.
        path: relative to the data folder's ``images``.
        seed: the seed that draws just this one.
        width: pixels.
        height: pixels.
        number: which of its job's pictures, 0 is the first.
    """

    id: str
    job_id: str
    path: str
    seed: int
    width: int
    height: int
    number: int = 0


class Kinship(StrEnum):
    """How a job was made of another one."""

    AGAIN = "again"
    """The same with another seed."""
    VARY = "vary"
    """The same seed with a second noise mixed in."""
    UPSCALE = "upscale"
    """The same picture, larger."""
    EDIT = "edit"
    """Asked for anew with some of it changed."""
    REMIX = "remix"
    """Drawn with the picture to start from."""


@dataclass(frozen=True, slots=True)
class Parent:
    """What a job was made of. It may be forgotten by now.

    Attributes:
        job_id: the other job.
        number: which of its pictures, 0 is the first; None for all of them.
        kinship: how.
    """

    job_id: str
    number: int | None
    kinship: Kinship

    @property
    def is_only(self) -> bool:
        """Whether a picture has one such child at most."""
        return self.number is not None and self.kinship in (Kinship.VARY, Kinship.UPSCALE)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the store has it. Times are UTC.

    Attributes:
        id: can't be guessed.
        owner: who asked.
        origin: from where.
        request: what is drawn, nothing left open; its source's path is relative, as in
            `ImageRecord`.
        status: where it is on its way.
        created_at: when it was acknowledged.
        finished_at: when it became final; None before.
        seconds: time it took to draw, waiting and loading left out; None before it is done.
        error: one sentence for the asker where it failed.
        attempts: how often it was begun.
        parent: what it was made of; None where it was asked for in words.
        note: a sentence for the asker on how it was done; None where there is nothing to say.
        weight: what its turns count, by the roles that its asker had; see `bot.priorities`.
        images: what was drawn and not deleted, in the order of their seeds.
    """

    id: str
    owner: Owner
    origin: Origin
    request: GenerationRequest
    status: JobStatus
    created_at: datetime
    finished_at: datetime | None = None
    seconds: float | None = None
    error: str | None = None
    attempts: int = 0
    parent: Parent | None = None
    note: str | None = None
    weight: float = 1.0
    images: tuple[ImageRecord, ...] = ()

    @property
    def parent_id(self) -> str | None:
        """The job that it was made of."""
        return self.parent.job_id if self.parent else None


@dataclass(frozen=True, slots=True)
class Child:
    """What a picture was made into.

    Attributes:
        job: the one job of its kind.
        is_new: whether it was asked for just now.
    """

    job: JobRecord
    is_new: bool


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job that may be forgotten.

    Attributes:
        id: whose.
        finished_at: when it ended.
        paths: the files that go with it where all older ones have gone: its pictures, as in
            `ImageRecord`, and the one that it starts from unless a job that stays longer does too.
    """

    id: str
    finished_at: datetime
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """Which of somebody's pictures are looked for.

    Attributes:
        words: all of them stand in the prompt as it was typed, in capitals or not, in any order.
        mode: what drew them; None for any.
    """

    words: tuple[str, ...] = ()
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What somebody has asked for so far.

    Attributes:
        requests: how many, however they ended.
        pictures: how many were drawn, deleted ones included.
        seconds: time that drawing them took.
        since: when the first was asked for; None where there is none.
    """

    requests: int
    pictures: int
    seconds: float
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of the requests that ended in one slot.

    Attributes:
        slot: its number, 0 is the oldest.
        requests: how many ended, however.
        pictures: drawn, deleted ones included.
        failed: requests that failed.
        wait: mean seconds from a request to its drawing, loads included; None where none was drawn.
        longest_wait: of one request; None likewise.
        step: mean seconds that a step took as the askers felt it, whoever shared it; None likewise.
    """

    slot: int
    requests: int
    pictures: int
    failed: int
    wait: float | None
    longest_wait: float | None
    step: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in to the page.

    Attributes:
        key: hash of the secret that it has.
        token: fingerprint of the token that it came with.
        expires_at: when it ends.
    """

    key: str
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result on its way to the asker.

    Attributes:
        job_id: whose.
        attempts: how often it was tried, this time included.
    """

    job_id: str
    attempts: int


class Setback(StrEnum):
    """What has a job wait once more that ran, or was in line, before."""

    RESTART = "restart"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as somebody who waits for it sees it.

    Attributes:
        record: its row.
        position: place in the queue, 1 is next; None where it doesn't wait.
        progress: the newest progress; None where it doesn't run.
        setback: why it waits once more; None where it doesn't.
        before: who goes before it, such as ``2 members``; None far from the front.
        expected_at: when it will be done; None where nobody knows.
        paused: why nothing that waits is drawn, empty where no reason was given; None where it is.
    """

    record: JobRecord
    position: int | None = None
    progress: Progress | None = None
    setback: Setback | None = None
    before: str | None = None
    expected_at: datetime | None = None
    paused: str | None = None
