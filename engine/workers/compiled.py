"""Forward passes of a UNet as compiled code, made for each shape in a thread beside the step loop.

Until a shape's code is there, and where compiling fails, the UNet is called as it is: nobody waits.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

# Only the worker process imports this module.
import torch  # noqa: TID253

MOST_SHAPES = 32
"""Shapes that code is made for; each takes memory, and up to a minute once."""

log = logging.getLogger(__name__)

Arguments = dict[str, Any]


class CompiledPasses:
    """The compiled code of one UNet. One thread calls it.

    Args:
        unet: what is compiled; its weights may move meanwhile, its layers may not change.
        name: of the model, for the log.
        backend: of ``torch.compile``.
    """

    def __init__(
        self, unet: Any, name: str, backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        self._name = name
        self._compile: Callable[[], Callable[..., Any]] = lambda: _compiled(
            unet, backend, self._reading
        )
        self._call: Callable[..., Any] | None = None
        self._ready: set[Hashable] = set()
        self._asked: set[Hashable] = set()
        self._to_make: deque[tuple[Hashable, Arguments, int]] = deque()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of the two above
        self._reading = _Reading()
        self._failed = False

    def passes(self, arguments: Arguments) -> Any | None:
        """Makes a forward pass; None where there is no code for its shapes yet.

        Then it is on its way, behind what was asked for before, unless it can't be made.
        """
        if self._call is not None and _shape(arguments) in self._ready:
            return self._call(**arguments)
        self.ask(arguments)
        return None

    def ask(self, arguments: Arguments) -> None:
        """Has code made for the shapes of arguments, unless that was asked for before."""
        shape = _shape(arguments)
        if self._failed or shape in self._asked or len(self._asked) >= MOST_SHAPES:
            return
        self._asked.add(shape)
        copied = {name: _copied(value) for name, value in arguments.items()}
        with self._lock:
            self._to_make.append((shape, copied, self._reading.epoch))
            if self._thread is None:
                self._thread = threading.Thread(target=self._make_all, name="compile", daemon=True)
                self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether code is being made."""
        return self._thread is not None

    def wait(self) -> None:
        """Waits until all that was asked for is there."""
        while (thread := self._thread) is not None:
            thread.join()

    def rest(self) -> None:
        """Notes that the weights go: what is being made meanwhile is made anew on their return.

        Code that just runs for the first time is waited for. It would read memory that is gone.
        """
        self._reading.end()
        self._to_make.clear()
        self._asked &= self._ready

    def _make_all(self) -> None:
        while True:
            with self._lock:
                if not self._to_make:
                    self._thread = None
                    return
                asked = self._to_make.popleft()
            self._make(*asked)

    @torch.inference_mode()
    def _make(self, shape: Hashable, arguments: Arguments, epoch: int) -> None:
        try:
            self._call = self._call or self._compile()  # whose import takes seconds
            with self._reading.of(epoch):
                self._call(**arguments)
        except Exception as error:  # compilers promise nothing about what they raise
            if epoch == self._reading.epoch:
                self._failed = True
                self._to_make.clear()
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                log.warning(
                    "%s can't be compiled (%s): it is drawn without, as if its mode did not say "
                    "`compile: true`",
                    self._name,
                    reason,
                )
        else:
            if epoch == self._reading.epoch:
                self._ready.add(shape)
                log.info("%s is compiled for %s", self._name, _shown(arguments))


class _Reading:
    """Who reads the weights: code does, unless they have gone since it was asked for.

    Torch keeps code, and so this, as long as the process lives; nothing here holds the weights.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._lock = threading.Lock()
        self._asked = threading.local()

    def end(self) -> None:
        """Has nobody read them who began before; waits for who just does."""
        with self._lock:
            self.epoch += 1

    @contextmanager
    def of(self, epoch: int) -> Iterator[None]:
        """What this thread runs meanwhile was asked for in an epoch."""
        self._asked.epoch = epoch
        try:
            yield
        finally:
            del self._asked.epoch

    def run(self, code: Callable[..., Any], *arguments: Any) -> Any:
        """Runs code."""
        asked = getattr(self._asked, "epoch", None)
        if asked is None:  # the step loop, which also says when they go
            return code(*arguments)
        with self._lock:
            if asked != self.epoch:
                raise RuntimeError("the weights have gone")
            return code(*arguments)


def _compiled(
    unet: Any, backend: str | Callable[..., Any], reading: _Reading
) -> Callable[..., Any]:
    def made(graph: Any, inputs: Any) -> Callable[..., Any]:
        lookup: Any = torch._dynamo.lookup_backend
        return partial(reading.run, lookup(backend)(graph, inputs))

    compiled: Callable[..., Any] = torch.compile(unet.forward, dynamic=False, backend=made)
    # Each UNet in the process counts towards it, with each of its shapes. Only now is the compiler
    # sure to be imported (`light_imports`).
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 8 * MOST_SHAPES)
    return compiled


def _shape(arguments: Arguments) -> Hashable:
    return tuple(
        (name, _shape(value) if isinstance(value, dict) else tuple(value.shape))
        for name, value in sorted(arguments.items())
        if isinstance(value, dict | torch.Tensor)
    )


def _shown(arguments: Arguments) -> str:
    sizes = (value.shape for value in arguments.values() if isinstance(value, torch.Tensor))
    rows, *shape = next(sizes)
    return f"passes of {rows} rows of {'x'.join(map(str, shape))}"


def _copied(value: Any) -> Any:
    """Returns tensors that the step loop doesn't have."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return value.clone() if isinstance(value, torch.Tensor) else value
