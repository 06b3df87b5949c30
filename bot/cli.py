"""The command line: what ``python bot.py`` understands. Results go to stdout, all else to stderr.

Only the standard library is imported before a verb is known, so that ``--help`` is instant.
"""

import argparse
import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot.records import JobRecord
    from bot.settings import Settings
    from engine.jobs import LoraChoice, RequestDraft
    from modes.mode_config import ModeConfig

OK, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 130, 143
MISCONFIGURED = 78
"""Only the owner can mend it: sysexits' EX_CONFIG, at which a supervisor need not start again."""

_DESCRIPTION = "Dream Lab: an image studio for your Discord community, on your own machine."
_EXITS = """\
exit status:
  0    done
  1    something is broken or was refused; stderr says what, and what is allowed
  2    the command line itself is wrong
  78   a setting, the token or the modes file is wrong; starting again without a change won't help
  130  ended by Ctrl-C (143: by SIGTERM); what was being drawn is cancelled
       (run ends with 0 instead: it lets that finish, and keeps what waits)
"""
_EPILOG = f"""\
examples:
  python bot.py                                start the bot and its page
  python bot.py check                          what is set up, and what to do next
  python bot.py imagine "a red circle"         draw one picture here and now
  python bot.py detect models/checkpoints/x.safetensors
                                               what kind of model is it?

`python bot.py VERB --help` explains a verb. Settings come from the environment and from the file
.env; .env.example lists them all.

{_EXITS}"""
_RUN = """\
Starts everything: the page, and Discord where DISCORD_TOKEN is set. It prints the page's address.
Ctrl-C lets running requests finish; a second Ctrl-C ends at once. Requests that still wait are
kept and drawn after the next start. SIGHUP reads the modes file again.
"""
_IMAGINE = """\
Draws in this terminal, with the same rules and defaults as everywhere else. What you leave out is
the mode's default. It needs no running bot, and a running one is not in its way: it draws in a
process of its own, so that the model is loaded once more.

The pictures stay in the data folder; their paths are printed, one a line. With --out they are
copied there as well, and the copies' paths are printed.
"""
_IMAGINE_EPILOG = f"""\
examples:
  python bot.py imagine "a blue square"
  python bot.py imagine "a fox in the snow" --mode dreams --size 512x768 --steps 30
  python bot.py imagine "a red circle" --seed 7 --count 4 --out circle.png
                          writes circle-1.png … circle-4.png with the seeds 7 to 10
  python bot.py imagine "an oil painting" --image photo.jpg --strength 0.6
                          draws from a picture: 0.2 keeps most of it, 1 next to nothing; in its
                          aspect unless --size says otherwise
  python bot.py imagine "a fox" --lora snow --lora night:0.6
                          the same as "a fox <lora:snow> <lora:night:0.6>"
  python bot.py imagine "a red circle" --json | jq -r .paths[0]

With --json stdout has one object: job, paths, seeds, seconds, request; or, where it failed, error
and kind (the error's name), with the same sentence on stderr.

{_EXITS}"""
_DETECT = """\
Says what a model or LoRA is, from its header alone: it takes milliseconds, needs no GPU and never
runs anything in the file.
"""
_DETECT_EPILOG = f"""\
examples:
  python bot.py detect models/diffusers/dream-demo
  python bot.py detect models/checkpoints/x.safetensors | jq -r .family

stdout has one JSON object. For a model (is: "model"): path, family, family_name,
cross_attention_dim, format, in_channels, variant, prediction_type_hint, weight_bytes. For a LoRA
(is: "lora"): path, family, family_name, cross_attention_dim, layout, rank, weight_bytes. Where it
can't be told: error and kind (the error's name), with the same sentence on stderr.

{_EXITS}"""
_CHECK = """\
Looks at everything the bot needs and changes nothing: packages, settings, the modes and their
models, devices, the data folder, the page's port. Each line is ok, warning or broken, with the
next step. The exit status is 1 where something is broken.
"""
_MODES = """\
Lists what can be drawn with; * marks the default. The modes file (MODES_FILE) says it all and
explains itself.
"""
_BACKUP = """\
Writes everything that Dream Lab keeps into one .zip file: requests, what is still to be delivered,
each place's mode, and the pictures. A bot may run meanwhile. An older file of this name is replaced
once the new one is whole. Settings (.env), modes.yaml and models are yours to keep.
"""
_RESTORE = """\
Makes the data folder what it was when it was backed up. The bot must be stopped. The backup is read
and checked first, and takes effect at once or not at all. Requests that were unfinished then are
drawn at the next start, and what was undelivered is delivered.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status.

    Args:
        argv: the words after the program's name; None takes the process's.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may hold what no encoding has
            stream.reconfigure(errors="backslashreplace")
    words = _parser().parse_args(argv)
    verb: Callable[[argparse.Namespace], int] = words.call
    try:
        return verb(words)
    except KeyboardInterrupt:
        _tell("Ended by Ctrl-C.")
        return INTERRUPTED
    except asyncio.CancelledError:
        _tell("Ended by SIGTERM.")
        return TERMINATED
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python bot.py", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=shape
    )
    parser.set_defaults(call=_run)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")

    def add(
        name: str, summary: str, description: str, call: Callable[..., int], epilog: str = _EXITS
    ) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = verbs.add_parser(
            name, help=summary, description=description, epilog=epilog, formatter_class=shape
        )
        verb.set_defaults(call=call)
        return verb

    add("run", "start the bot and its page (the default)", _RUN, _run)
    _add_imagine(add("imagine", "draw in this terminal", _IMAGINE, _imagine, _IMAGINE_EPILOG))
    detect = add("detect", "say what a model file is", _DETECT, _detect, _DETECT_EPILOG)
    detect.add_argument("path", type=Path, help="a .safetensors file or a diffusers folder")
    add("check", "say what is set up and what is not", _CHECK, _check)
    add("modes", "list what can be drawn with", _MODES, _modes)
    backup = add("backup", "write all that is kept to one file", _BACKUP, _backup)
    backup.add_argument("file", type=Path, metavar="FILE", help="a .zip file")
    restore = add("restore", "bring back what was backed up", _RESTORE, _restore)
    restore.add_argument("file", type=Path, metavar="FILE", help="what `backup` wrote")
    restore.add_argument(
        "--replace", action="store_true", help="replace the database that is there already"
    )
    return parser


def _add_imagine(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("prompt", help="what to draw, in quotes")
    verb.add_argument("--mode", help="what to draw with; `python bot.py modes` lists them")
    verb.add_argument("--negative", metavar="TEXT", help="what to keep away from")
    verb.add_argument("--size", type=_size, metavar="WxH", help="pixels, such as 512x768")
    verb.add_argument("--steps", type=int, metavar="N", help="denoising steps; more take longer")
    verb.add_argument(
        "--guidance", type=float, metavar="X", help="how closely to follow the prompt"
    )
    verb.add_argument("--sampler", metavar="NAME", help='how a step is taken, such as "Euler a"')
    verb.add_argument(
        "--lora",
        type=_loras,
        action="extend",
        default=[],
        metavar="NAME[:X]",
        help="lay a LoRA over the model, at strength X (1 unless given), where the mode offers "
        "any (`python bot.py modes` lists them); repeat it for several",
    )
    verb.add_argument(
        "--image", type=Path, metavar="FILE", help="start from a PNG, JPEG, WebP or GIF picture"
    )
    verb.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help="how much of that picture is drawn anew, above 0 to 1 (0.75)",
    )
    verb.add_argument("--seed", type=int, metavar="N", help="the same seed draws the same again")
    verb.add_argument("--count", type=int, metavar="N", help="pictures, with seeds in a row")
    verb.add_argument(
        "--out", type=_png, metavar="FILE", help="copy to FILE, a .png; an older one is replaced"
    )
    verb.add_argument("--json", action="store_true", help="print one JSON object")


def _size(text: str) -> tuple[int, int]:
    from engine.errors import RequestError
    from modes.request_fields import read_size

    try:
        return read_size(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _loras(text: str) -> "tuple[LoraChoice, ...]":
    from engine.errors import RequestError
    from modes.lora_choices import read_list

    try:
        return read_list(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} is no .png file")
    return path


# The verbs


def _run(_: argparse.Namespace) -> int:
    def serve() -> int:
        from bot.app import run
        from bot.settings import Settings

        settings = Settings.load()
        _log_from(settings.log_level)
        asyncio.run(run(settings, _say))
        return OK

    return _guarded(serve)


def _imagine(words: argparse.Namespace) -> int:
    def draw() -> int:
        from bot.settings import Settings
        from engine.jobs import RequestDraft

        settings = Settings.load()
        _log_from("DEBUG" if settings.log_level == "DEBUG" else "WARNING")
        width, height = words.size or (None, None)
        draft = RequestDraft(
            prompt=words.prompt,
            mode=words.mode,
            negative_prompt=words.negative,
            width=width,
            height=height,
            steps=words.steps,
            guidance_scale=words.guidance,
            sampler=words.sampler,
            seed=words.seed,
            count=words.count,
            loras=tuple(words.lora),
            image=_read(words.image) if words.image else None,
            strength=words.strength,
        )
        _refuse_out(words.out)
        record, files = asyncio.run(_draw(settings, draft))
        paths = _copy(files, words.out) if words.out else files
        _say(_as_json(record, paths) if words.json else "\n".join(map(str, paths)))
        return OK

    return _guarded(draw, as_json=words.json)


def _detect(words: argparse.Namespace) -> int:
    def look() -> int:
        from engine.errors import UnsupportedModelError
        from engine.model_detector import detect, detect_lora

        try:
            found = {"is": "model"} | detect(words.path).as_dict()
        except UnsupportedModelError as error:
            try:
                found = {"is": "lora"} | detect_lora(words.path).as_dict()
            except UnsupportedModelError:
                raise error from None  # what it isn't as a model says more
        _say(json.dumps(found, indent=2, ensure_ascii=False))
        return OK

    return _guarded(look, as_json=True)


def _check(_: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from bot.check import Level, examine

    styles = {Level.OK: "green", Level.WARNING: "yellow", Level.BROKEN: "bold red"}
    console = Console(soft_wrap=True, highlight=False)
    levels: set[Level] = set()
    for finding in examine():
        levels.add(finding.level)
        level = (f"{finding.level:<8}", styles[finding.level])
        console.print(Text.assemble(level, f" {finding.subject:<12} {finding.text}"))
        if finding.hint:
            console.print(Text(f"{'':<22}→ {finding.hint}", "dim"))
    return REFUSED if Level.BROKEN in levels else OK


def _modes(_: argparse.Namespace) -> int:
    def show() -> int:
        from bot.settings import Settings
        from modes.catalog import ModeCatalog

        settings = Settings.load()
        _log_from("WARNING")
        catalog = ModeCatalog(settings.modes_file, settings.model_root, settings.model)
        longest = max(map(len, catalog.names()))
        for name, mode in catalog.modes.items():
            mark = "*" if name == catalog.default_mode else " "
            width, height = mode.default_size
            about = mode.title + (f": {mode.description}" if mode.description else "")
            facts = f"{width}x{height}, {mode.default_steps} steps{', NSFW' if mode.nsfw else ''}"
            _say(f"{mark} {name:<{longest}}  {about} ({facts})")
            for line in _further(mode):
                _say(f"  {'':<{longest}}  {line}")
        return OK

    return _guarded(show)


def _further(mode: "ModeConfig") -> Iterator[str]:
    """Yields what most modes don't have, a line for each."""
    if mode.clip_skip:
        yield f"clip skip {mode.clip_skip}"
    if mode.model.vae:
        yield f"VAE {mode.model.vae.name}"
    if mode.refiner:
        yield f"refiner {mode.refiner.path.name} after {mode.refiner_from:.0%} of the steps"
    if mode.loras_allowed or mode.lora_folder:
        offered = ", ".join(mode.offered_loras()) or "none there yet"
        yield f"LoRAs to ask for, {mode.max_loras} at once: {offered}"
    if mode.allowed_roles:
        yield f"roles that may use it: {', '.join(mode.allowed_roles)}"


def _backup(words: argparse.Namespace) -> int:
    def write() -> int:
        from bot.backup import back_up
        from bot.settings import Settings
        from bot.terminal import counted

        settings = Settings.load()
        _log_from("WARNING")
        with counted(sys.stderr, "backing up") as tell:
            contents = back_up(settings.data, words.file, tell)
        _say(f"{words.file}: {contents.jobs} requests, {contents.pictures} pictures.")
        if contents.missing:
            _tell(f"{contents.missing} pictures were lost before: they have rows, but no files.")
        return OK

    return _guarded(write)


def _restore(words: argparse.Namespace) -> int:
    def read() -> int:
        from bot.backup import restore
        from bot.settings import Settings
        from bot.terminal import counted

        settings = Settings.load()
        _log_from("WARNING")
        with counted(sys.stderr, "restoring") as tell:
            contents = restore(words.file, settings.data, replace=words.replace, tell=tell)
        _say(f"{settings.data}: {contents.jobs} requests, {contents.pictures} pictures.")
        return OK

    return _guarded(read)


# Drawing


async def _draw(settings: "Settings", draft: "RequestDraft") -> "tuple[JobRecord, list[Path]]":
    """Draws a request while its progress is shown; returns its record and its files.

    Raises:
        DreamLabError: it was refused, it failed, or somebody cancelled it.
    """
    from bot.app import open_app
    from bot.records import Origin, Owner
    from bot.terminal import open_display
    from engine.errors import DreamLabError, PoolClosedError
    from engine.jobs import JobStatus

    owner = Owner("cli:local", _user(), is_trusted=True)
    _cancel_on_sigterm()
    async with open_app(settings) as app:
        record = await app.studio.submit(draft, owner, Origin("cli"))
        try:
            with open_display(sys.stderr) as display:
                async for view in app.studio.watch(record.id):
                    record = view.record
                    display.show(view)
        except asyncio.CancelledError:
            await app.studio.cancel(record.id, owner)
            raise
        if record.status is JobStatus.DONE:
            return record, [app.studio.image_path(image).absolute() for image in record.images]
    if record.status.is_final:
        raise DreamLabError(record.error or "The request was cancelled.")
    raise PoolClosedError


def _cancel_on_sigterm() -> None:
    """Makes SIGTERM cancel this task as Ctrl-C does, so that no request is left half-way."""
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # an account without a name
        return "somebody"


def _read(path: Path) -> bytes:
    """Returns a file's first bytes, one more than a picture may have."""
    from bot.source_images import MAX_BYTES

    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _refuse_out(out: Path | None) -> None:
    """Finds out before anything is drawn whether the copies have a place."""
    from engine.errors import RequestError

    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise RequestError("out", out, "a .png file in a folder that exists")


def _copy(files: Sequence[Path], out: Path) -> list[Path]:
    """Copies pictures to where they are wanted, numbered where there are several."""
    import shutil

    several = len(files) > 1
    copies = [
        out.with_stem(f"{out.stem}-{i}") if several else out for i in range(1, len(files) + 1)
    ]
    for file, copy in zip(files, copies, strict=True):
        shutil.copyfile(file, copy)
    return [copy.absolute() for copy in copies]


def _as_json(record: "JobRecord", paths: Sequence[Path]) -> str:
    request = record.request
    told: dict[str, Any] = {
        "job": record.id,
        "paths": [str(path) for path in paths],
        "seeds": [image.seed for image in record.images],
        "seconds": record.seconds,
        "request": {
            "mode": request.mode,
            "model": str(request.model.path),
            "prompt": request.shown_prompt,
            "negative": request.shown_negative,
            "width": request.width,
            "height": request.height,
            "steps": request.steps,
            "guidance": request.guidance_scale,
            "sampler": request.sampler,
            "seed": request.seed,
            "count": request.count,
            "loras": {lora.adapter_name: lora.strength for lora in request.model.loras},
            "strength": request.strength if request.source else None,
        },
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


# Telling


def _guarded(verb: Callable[[], int], *, as_json: bool = False) -> int:
    """Calls a verb; what was foreseen to go wrong is told in a sentence, without a traceback."""
    from bot.settings import SettingsError
    from engine.errors import DreamLabError
    from modes.modes_file import ModesFileError

    status = REFUSED
    try:
        return verb()
    except DreamLabError as error:
        kind, text = type(error).__name__, str(error)
        if isinstance(error, SettingsError | ModesFileError):
            status = MISCONFIGURED
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        kind, text = "OSError", f"{place}{error.strerror or error}"
    _tell(text)
    if as_json:
        _say(json.dumps({"error": text, "kind": kind}, indent=2, ensure_ascii=False))
    return status


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _log_from(level: str) -> None:
    import logging

    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(level=level, format=form, stream=sys.stderr)
    # It counts every file of the folder that changes.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
