"""What the engine needs of modes, and which of them is the current one."""

from collections.abc import Sequence
from typing import Protocol

from engine.errors import RequestError
from engine.jobs import GenerationRequest, ModelLoadJob, ModelSpec, RequestDraft


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


def loading_of(mode: Mode, owner: str = "system") -> ModelLoadJob:
    """Returns the job that loads a mode's model, ready for a request with the mode's defaults.

    Args:
        mode: whose.
        owner: who wants it; see `Job`.
    """
    try:
        warm = mode.build_request(RequestDraft(prompt="a picture"))
    except RequestError:  # its defaults are not allowed: every request says otherwise
        warm = None
    return ModelLoadJob(owner=owner, model=mode.model, warm=warm)


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
