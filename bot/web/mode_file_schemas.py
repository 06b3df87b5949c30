"""What travels over HTTP about drafts of the modes file."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from bot.web.difference import DiffLineOut
from bot.web.mode_routes import EXAMPLE
from bot.web.schemas import Sent, Text
from modes.yaml_reader import Problem


class ChangeIn(Sent):
    """One mode made to say something else."""

    name: Text
    values: dict[str, Any] | None = Field(
        description="Keys that say something else, as modes.yaml has them; a null takes the key "
        "out. Instead of all of it, null takes the mode out."
    )


class DraftFileIn(Sent):
    """A modes file that is being edited."""

    text: Text = Field(examples=[EXAMPLE])
    change: ChangeIn | None = Field(default=None, description="Made to the text before it is read.")


class TryIn(Sent):
    """A picture with a mode of a draft."""

    text: Text = Field(description="The modes file that is being edited.", examples=[EXAMPLE])
    mode: Text = Field(examples=["demo"])
    prompt: str = Field(examples=["a red circle on a white background"])
    seed: int | None = Field(default=None, description="Left out, one is drawn.")


class RestoreIn(Sent):
    """What the file is to say again."""

    version: str = Field(examples=["20261123T020000.000000Z"])


class ProblemOut(BaseModel):
    """Something wrong with, or noteworthy about, a draft."""

    key: str
    line: int | None
    detail: str

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Returns a problem; its place stands beside what it says."""
        return cls(key=problem.key, line=problem.line, detail=problem.text)


class VersionOut(BaseModel):
    """What the file said before."""

    id: str
    ended_at: datetime = Field(description="Until when it was in force.")
    diff: list[DiffLineOut] = Field(description="What would change if it came back.")


class FileOut(BaseModel):
    """The modes file as it is."""

    text: str
    version: str = Field(description="Tells it from others; see `If-Match` of PUT /api/modes.")
    versions: list[VersionOut] = Field(description="What it said before, newest first.")


class CheckOut(BaseModel):
    """What a draft would mean."""

    text: str = Field(description="The draft, with the change made where that was possible.")
    version: str = Field(description="Of the file that there is.")
    problems: list[ProblemOut] = Field(description="Why it can't come into force; none: it can.")
    warnings: list[ProblemOut]
    diff: list[DiffLineOut] = Field(description="Against the file that there is.")
    modes: dict[str, Any] | None = Field(
        description="What each mode says, as plain values; null where the text can't be read."
    )
