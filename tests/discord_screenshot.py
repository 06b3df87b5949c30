"""Pictures of answers on Discord: ``python -m tests.discord_screenshot docs/images``.

The whole program draws with the bundled model and answers over real sockets to the Discord double.
What stands in the messages that it sent there is laid out as Discord's own client does on a phone.
"""

import argparse
import asyncio
import base64
import html
import io
import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Browser, ViewportSize

from tests.discord_double import DiscordDouble, Interaction
from tests.discord_double.double import MANAGE_GUILD
from tests.discord_double.world import Message, User
from tests.discord_kit import serving, settings_for
from tests.page_kit import copied_modes, open_browser

PHONE: ViewportSize = {"width": 400, "height": 300}
PROMPT = "a red circle on a white background"

_STYLES = {1: "primary", 2: "secondary", 3: "success", 4: "danger"}
_TOKEN = re.compile(
    r"\\(?P<plain>[^\w\s])|\*\*(?P<bold>(?:\\.|[^\\])+?)\*\*|`(?P<code>[^`]+)`"
    r"|<@!?(?P<user>\d+)>|<#(?P<room>\d+)>|<t:(?P<time>\d+)(?::(?P<form>\w))?>"
    r"|(?P<link>https?://\S+)"
)
_STYLE = """
body { margin: 0; background: #313338; color: #dbdee1; font: 15px/1.35 "DejaVu Sans", sans-serif; }
#shot { padding: 12px 12px 14px; }
.asked { color: #b5bac1; font-size: 12px; margin: 0 0 6px 44px; }
.asked b, .who b { color: #f2f3f5; }
.asked i, .name { color: #c9cdfb; font-style: normal; background: #3c4270; border-radius: 3px;
  padding: 0 2px; }
.message { display: grid; grid-template-columns: 34px 1fr; gap: 10px; }
.face { width: 34px; height: 34px; border-radius: 50%; background: #5865f2; color: #fff;
  display: grid; place-items: center; font-weight: bold; font-size: 13px; }
.who { margin-bottom: 2px; } .who span { background: #5865f2; color: #fff; border-radius: 3px;
  font-size: 10px; padding: 1px 4px; margin-left: 4px; vertical-align: 1px; }
p { margin: 0; overflow-wrap: anywhere; } p.small { color: #949ba4; font-size: 12px; }
p.item::before { content: "•"; margin-right: 8px; }
code { background: #2b2d31; border-radius: 3px; padding: 0 3px; font-size: 85%; }
.link { color: #00a8fc; } .time { background: #3f4147; border-radius: 3px; padding: 0 2px; }
.pictures { display: grid; gap: 4px; margin-top: 6px; border-radius: 8px; overflow: hidden; }
.pictures.many { grid-template-columns: 1fr 1fr; } .pictures img { width: 100%; display: block; }
.pictures.one { width: 256px; }
.row { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 6px; }
button { border: 0; border-radius: 8px; padding: 7px 12px; font: inherit; font-size: 13px;
  color: #fff; background: #4e5058; }
.primary { background: #5865f2; } .success { background: #248046; } .danger { background: #da373c; }
.private { color: #949ba4; font-size: 12px; margin-top: 6px; }
"""


@dataclass(frozen=True)
class Look:
    """What somebody sees of a message at one moment.

    Attributes:
        content: its text, with Discord's markdown.
        pictures: its files.
        buttons: rows of them, as Discord's JSON has them.
        is_private: whether its addressee alone sees it.
        asked: who used which command.
        names: of users and channels, by id.
        at: the moment, in seconds since 1970.
    """

    content: str
    pictures: tuple[bytes, ...]
    buttons: tuple[tuple[Mapping[str, Any], ...], ...]
    is_private: bool
    asked: tuple[str, str]
    names: Mapping[str, str]
    at: float


class Sitting:
    """The program on the double, and what its answers look like."""

    def __init__(self, discord: DiscordDouble) -> None:
        self.discord = discord
        self.members = [discord.world.add_user(name) for name in ("Mika", "Ada", "Noor")]

    async def looks(self) -> dict[str, Look]:
        """Returns what is to be shown, by the names of the files."""
        discord, (mika, ada, noor) = self.discord, self.members
        shown: dict[str, Look] = {}
        asked = await self._imagine(mika, f"{PROMPT} --seed 1", count=4, steps=60)
        answer = await discord.answer(asked)
        before = await self._imagine(ada, "a green heart on a pink background", count=4)
        await discord.answer(before)
        last = await self._imagine(noor, "a purple ring on a white background")
        shown["discord-queue"] = self._look(await discord.answer(last), noor, "imagine")

        def is_half_drawn() -> bool:
            step = re.search(r"step (\d+) of (\d+)", answer.content)
            return bool(step and int(step[1]) >= int(step[2]) / 2 and answer.attachments)

        await discord.until(is_half_drawn, "a preview")
        shown["discord-progress"] = self._look(answer, mika, "imagine")
        done = await discord.picture(asked)
        larger = await discord.click(done, "U2", user=mika)
        await discord.picture(larger)
        await discord.until(lambda: "U2 ✓" in done.buttons, "the button that was used")
        shown["discord-answer"] = self._look(done, mika, "imagine")
        told = await discord.click(done, "Details", user=ada)
        shown["discord-details"] = self._look(await discord.private_word(told), ada, "")
        values = {"waiting": 5, "pictures_per_day": 3}
        changed = await discord.slash("server set", values=values, permissions=MANAGE_GUILD)
        await discord.private_word(changed)
        refused = await self._imagine(mika, "a yellow star")
        shown["discord-refusal"] = self._look(await discord.private_word(refused), mika, "imagine")
        return shown

    async def _imagine(self, user: User, prompt: str, **values: Any) -> Interaction:
        return await self.discord.slash("imagine", values={"prompt": prompt, **values}, user=user)

    def _look(self, message: Message, user: User, command: str) -> Look:
        guild = self.discord.guild
        names = {str(each.id): f"@{each.name}" for each in self.discord.world.users}
        names[str(guild.channel_id)] = "#pictures"
        return Look(
            message.content,
            tuple(attachment.content for attachment in message.attachments),
            tuple(tuple(row["components"]) for row in message.components),
            message.ephemeral,
            (user.name, command),
            names,
            time.time(),
        )


def page(look: Look) -> str:
    """Returns a message as a page of HTML."""
    user, command = look.asked
    asked = f'<p class="asked"><b>{user}</b> used <i>/{command}</i></p>' if command else ""
    body = "".join(_line(line, look.names, look.at) for line in look.content.split("\n"))
    kind = "many" if len(look.pictures) > 1 else "one"
    images = "".join(f'<img src="{_address(picture)}">' for picture in look.pictures)
    pictures = f'<div class="pictures {kind}">{images}</div>' if images else ""
    rows = "".join(
        f'<div class="row">{"".join(_button(button) for button in row)}</div>'
        for row in look.buttons
    )
    private = '<p class="private">Only you can see this</p>' if look.is_private else ""
    return (
        f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style><div id="shot">{asked}'
        '<div class="message"><div class="face">DL</div><div><p class="who"><b>Dream Lab</b>'
        f"<span>APP</span></p>{body}{pictures}{rows}{private}</div></div></div>"
    )


def _line(line: str, names: Mapping[str, str], now: float) -> str:
    for mark, kind in (("-# ", "small"), ("- ", "item")):
        if line.startswith(mark):
            return f'<p class="{kind}">{_inline(line.removeprefix(mark), names, now)}</p>'
    return f"<p>{_inline(line, names, now) or '&nbsp;'}</p>"


def _inline(text: str, names: Mapping[str, str], now: float) -> str:
    def shown(match: re.Match[str]) -> str:
        if match["plain"]:
            return html.escape(match["plain"])
        if match["bold"]:
            return f"<b>{_inline(match['bold'], names, now)}</b>"
        if match["code"]:
            return f"<code>{html.escape(match['code'])}</code>"
        if match["time"]:
            return f'<span class="time">{_moment(int(match["time"]) - now, match["form"])}</span>'
        if match["link"]:
            return f'<span class="link">{html.escape(match["link"])}</span>'
        name = names.get(match["user"] or match["room"], "@somebody")
        return f'<span class="name">{html.escape(name)}</span>'

    parts, at = [], 0
    for match in _TOKEN.finditer(text):
        parts += [html.escape(text[at : match.start()]), shown(match)]
        at = match.end()
    return "".join([*parts, html.escape(text[at:])])


def _moment(seconds: float, form: str | None) -> str:
    """Returns a moment as Discord says it: counted down to, or of today."""
    if form != "R":
        return "today"
    size = abs(seconds)
    for unit, most, length in (("second", 60, 1), ("minute", 3600, 60), ("hour", 86400, 3600)):
        if size < most:
            count = max(round(size / length), 1)
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"in {words}" if seconds > 0 else f"{words} ago"
    return "tomorrow" if seconds > 0 else "yesterday"


def _button(button: Mapping[str, Any]) -> str:
    return f'<button class="{_STYLES[button["style"]]}">{html.escape(button["label"])}</button>'


def _address(picture: bytes) -> str:
    with Image.open(io.BytesIO(picture)) as image:
        kind = Image.MIME[image.format or ""]
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


async def save(browser: Browser, look: Look, path: Path) -> None:
    """Saves what a message looks like, at twice the pixels of a phone's width."""
    context = await browser.new_context(viewport=PHONE, device_scale_factor=2)
    tab = await context.new_page()
    await tab.set_content(page(look))
    await tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    picture = await tab.locator("#shot").screenshot()
    await context.close()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


@asynccontextmanager
async def opened() -> AsyncIterator[Sitting]:
    """Runs the program with the bundled model on a Discord double."""
    with tempfile.TemporaryDirectory() as data:
        folder = Path(data)
        async with DiscordDouble.running() as discord:
            settings = settings_for(discord, folder, modes_file=copied_modes(folder))
            settings = settings.model_copy(update={"devices": ("cpu",)})
            async with serving(settings, discord, edit_seconds=0.5):
                await discord.connected()
                yield Sitting(discord)


async def make(folder: Path, only: str) -> None:
    """Saves all pictures whose names begin so."""
    async with opened() as sitting:
        looks = await sitting.looks()
    async with open_browser() as browser:
        for name, look in looks.items():
            if name.startswith(only):
                await save(browser, look, folder / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the PNG files go")
    parser.add_argument("--only", default="", help="those whose name begins so")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(make(options.folder, options.only))
