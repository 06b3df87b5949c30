"""What the engine needs of modes, and which of them is the current one."""

from collections.abc import Sequence
from typing import Protocol

from engine.jobs import GenerationRequest, ModelSpec, RequestDraft


class Mode(Protocol):
    """A named way to draw."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def model(self) -> ModelSpec:
        """What it draws with."""

    def build_request(self, draft: RequestDraft) -> GenerationRequest:
        """Fills what a draft leaves out.

        Raises:
            RequestError: something in it is not allowed.
        """


class ModeSource(Protocol):
    """Where modes are looked up; what it answers may change at any time."""

    @property
    def default_mode(self) -> str:
        """The mode that draws until another is switched to."""

    def names(self) -> Sequence[str]:
        """Returns the names of all modes."""

    def get(self, name: str) -> Mode:
        """Returns a mode.

        Raises:
            UnknownModeError: there is none of this name.
        """


class CurrentMode:
    """The mode that was switched to last; the default until then and after its removal."""

    def __init__(self, modes: ModeSource) -> None:
        self._modes = modes
        self._chosen: str | None = None

    @property
    def name(self) -> str:
        """What a draft without a mode draws with."""
        if self._chosen is not None and self._chosen in self._modes.names():
            return self._chosen
        return self._modes.default_mode

    def choose(self, name: str) -> None:
        """Makes a mode the current one."""
        self._chosen = name

    def get(self, name: str) -> Mode:
        """Returns any mode.

        Raises:
            UnknownModeError: there is none of this name.
        """
        return self._modes.get(name)

    def build_request(self, draft: RequestDraft) -> GenerationRequest:
        """Fills a draft from the mode that it names, or else the current one.

        Raises:
            UnknownModeError: there is none of this name.
            RequestError: the mode doesn't allow what it asks for.
        """
        return self.get(draft.mode or self.name).build_request(draft)
