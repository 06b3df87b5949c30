"""People by hand: a line typed here is what somebody does on the pretended Discord."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.discord_double import commands
from tests.discord_double.double import MANAGE_GUILD, MANAGE_MESSAGES, DiscordDouble
from tests.discord_double.world import Interaction, Message

HELP = """\
/imagine a red circle size=128x128 seed=7     any command of the bot; options as name=value,
                                              a file by its path
press 1 Again                                 a button of message number 1
later 15                                      moves Discord's clock forward, in minutes
help, quit
"""


class Console:
    """Reads what somebody does and tells what they see."""

    def __init__(self, double: DiscordDouble, pictures: Path, say: Callable[[str], None]) -> None:
        """Takes the double, the folder that pictures are kept in, and how to speak."""
        self._double = double
        self._pictures = pictures
        self._say = say
        self._told: dict[int, tuple[Any, ...]] = {}

    async def do(self, line: str) -> None:
        """Does what a line says; what can't be done is said."""
        try:
            words = shlex.split(line)
            if words and words[0].startswith("/"):
                await self._command(words)
            elif words and words[0] == "press":
                await self._press(int(words[1]), " ".join(words[2:]))
            elif words and words[0] == "later":
                self._double.clock.advance(minutes=float(words[1]))
            elif words:
                self._say(HELP)
        except (AssertionError, ValueError, IndexError, OSError) as error:
            self._say(f"{error or 'that is not possible'}; type help")

    async def watch(self) -> None:
        """Tells every message as it appears and changes, until it is cancelled."""
        while True:
            await self._double.until(self._tell_changes, patience=None)

    async def _command(self, words: list[str]) -> Interaction:
        line, rest = [words[0][1:]], words[1:]
        while rest and self._leads_on([*line, rest[0]]):
            line.append(rest.pop(0))
        path = commands.find(self._double.world.commands, " ".join(line))
        declared = {option["name"]: option for option in path[-1].get("options") or []}
        values: dict[str, Any] = {}
        free: list[str] = []
        for word in rest:
            name, equals, value = word.partition("=")
            if equals and name in declared:
                values[name] = self._typed(declared[name], value)
            else:
                free.append(word)
        if free:
            values = {next(iter(declared)): " ".join(free), **values}
        return await self._double.slash(" ".join(line), values=values, permissions=_EVERYTHING)

    def _leads_on(self, words: list[str]) -> bool:
        try:
            commands.find(self._double.world.commands, " ".join(words))
        except commands.NotOffered:
            return False
        return "=" not in words[-1] and len(words) <= 3

    async def _press(self, number: int, label: str) -> None:
        message = list(self._double.world.messages.values())[number - 1]
        await self._double.click(message, label, permissions=_EVERYTHING)

    def _tell_changes(self) -> None:
        for number, message in enumerate(list(self._double.world.messages.values()), 1):
            files = tuple(attachment.id for attachment in message.attachments)
            state = (message.content, files, message.deleted, tuple(message.buttons))
            if not message.loading and self._told.get(message.id) != state:
                self._told[message.id] = state
                self._say(self._text(number, message))

    def _text(self, number: int, message: Message) -> str:
        if message.deleted:
            return f"[{number}] deleted"
        private = " (only you see this)" if message.ephemeral else ""
        lines = [f"[{number}]{private} {message.content}"]
        for attachment in message.attachments:
            self._pictures.mkdir(parents=True, exist_ok=True)
            path = self._pictures / attachment.filename
            path.write_bytes(attachment.content)
            lines.append(f"    {path}")
        if message.buttons:
            lines.append("    " + " ".join(f"[{label}]" for label in message.buttons))
        return "\n".join(lines)

    def _typed(self, option: dict[str, Any], value: str) -> Any:
        """Returns a value as the type that the option declares; of a file, its path is typed."""
        if option["type"] == commands.INTEGER:
            return int(value)
        if option["type"] == commands.NUMBER:
            return float(value)
        if option["type"] == commands.ATTACHMENT:
            path = Path(value)
            return self._double.attach(path.name, path.read_bytes())
        return value


_EVERYTHING = MANAGE_GUILD | MANAGE_MESSAGES
