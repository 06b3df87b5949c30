"""Spares the worker process what its libraries import on their way to what it uses.

Diffusers and transformers are asked for a few classes; what comes with them, torch's compiler
first, takes longer to import than torch itself. Nothing is cut out: what is put off runs as soon as
something of it is used that only it has.
"""

import importlib
import importlib.metadata
import importlib.util
import operator
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Unpack
from unittest.mock import patch

_STRANGERS = ("peft", "transformers")


def import_lightly() -> None:
    """Makes torch's friends quick to import, here and for the whole process.

    To be called before any of them is imported; afterwards it changes nothing.
    """
    if {"diffusers", "peft", "torch._dynamo", "transformers"} & sys.modules.keys():
        return
    with suppress(ImportError, OSError):  # whoever imports it next says what is broken
        _prepare()


def _prepare() -> None:
    import torch

    # Nothing is spread over processes here, and transformers imports all that could do so.
    torch.distributed.is_available = _no
    # The compiler: libraries ask it to leave functions alone, which it does where it is not there.
    put_off(
        "torch._dynamo",
        ("_trace_wrapped_higher_order_op",),
        allow_in_graph=_unchanged,
        assume_constant_result=_unchanged,
        disable=_unchanged,
    )
    # Sizes that are symbols, with all of sympy: it is asked what holds of sizes, which are numbers
    # here until the compiler runs, and of numbers the plain answer is its own.
    put_off(
        "torch.fx.experimental.symbolic_shapes",
        expect_true=bool,
        guard_or_false=bool,
        guard_or_true=bool,
        guard_size_oblivious=bool,
        is_nested_int=_no,
        sym_eq=operator.eq,
    )
    # LoRAs are laid over its models by our own hand, so that diffusers works as it does without
    # those two. The search is for versions, in every file of everything that is installed.
    sys.modules |= dict.fromkeys(_STRANGERS)  # type: ignore[arg-type] # None says: not there
    with patch("importlib.metadata.packages_distributions", dict):
        importlib.import_module("diffusers.utils")
    for library in _STRANGERS:
        del sys.modules[library]
    # Each imports all models of its kind for the few that are used.
    for models in ("autoencoders", "transformers", "unets"):
        put_off(f"diffusers.models.{models}")
    # These look through the files of all models that there are.
    put_off("transformers", __version__=importlib.metadata.version("transformers"))
    put_off("transformers.models")
    # Texts and pictures, in and out; models ask it for a type.
    put_off("transformers.processing_utils", Unpack=Unpack)
    # A model's documentation is put together from that of others, which are imported for it.
    vars(importlib.import_module("transformers.utils"))["auto_docstring"] = _unchanged


def put_off(name: str, below: Iterable[str] | None = None, **stand_ins: Any) -> None:
    """Puts a module into its place that runs when something of it is used.

    Args:
        name: the module's.
        below: which of a package's modules can be imported without that, and are at once; None lets
            all be, when they are asked for.
        stand_ins: what can be used of it without running it.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _PutOff
    vars(module).update(stand_ins)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    if below is not None:
        for one in below:
            importlib.import_module(f"{name}.{one}")
        sys.meta_path.insert(0, _Gate(module))


class _PutOff(ModuleType):
    """A module that runs when something is used that it has not."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system and others ask of any module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        full = f"{self.__name__}.{name}"
        if "__path__" in vars(self) and importlib.util.find_spec(full) is not None:
            return importlib.import_module(full)
        _run(self)
        # Some put another module into their place.
        return getattr(sys.modules[self.__name__], name)


class _Gate(MetaPathFinder, Loader):
    """Has a module that is put off run before any of those below it, which it may import itself."""

    def __init__(self, above: ModuleType) -> None:
        self._above = above
        self._start = f"{above.__name__}."

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if not name.startswith(self._start):
            return None
        sys.meta_path.remove(self)
        _run(self._above)
        module = sys.modules.get(name)
        if module is None:
            return None
        # It is there, and is not to run again.
        self._spec = module.__spec__
        module.__spec__ = ModuleSpec(name, self)
        return module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _run(module: ModuleType) -> None:
    if isinstance(module, _PutOff):
        object.__setattr__(module, "__class__", _Run)
        assert module.__spec__  # noqa: S101 - it was made from one
        assert module.__spec__.loader  # noqa: S101 - likewise
        module.__spec__.loader.exec_module(module)


class _Run(ModuleType):
    """A module that ran later than others took it; some put another into their place."""

    def __getattr__(self, name: str) -> Any:
        now = sys.modules[self.__name__]
        if now is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(now, name)


def _no(*_: object) -> bool:
    return False


def _unchanged(function: Any = None, *_args: Any, **_settings: Any) -> Any:
    """Decorates with nothing, called with a function or with settings."""
    return function if callable(function) else _unchanged
