"""Everything that people can type or press, in one list."""

from typing import Any

import discord
from discord import app_commands

from bot import views
from bot.cogs import context, line, me, mode, moderation, pictures
from bot.cogs.answer import EditForm
from bot.cogs.drain import drain
from bot.cogs.imagine import imagine
from bot.cogs.mydata import ForgetButton, PartButton, mydata
from bot.cogs.permute import WishButton
from bot.cogs.report import ReportForm
from bot.cogs.server import server
from bot.cogs.settings import own_settings
from bot.cogs.stats import stats
from bot.forms import Form

COMMANDS: tuple[
    app_commands.Command[Any, ..., Any] | app_commands.Group | app_commands.ContextMenu, ...
] = (
    imagine,
    context.remix,
    context.details,
    mode.show_modes,
    mode.mode_group,
    pictures.history,
    pictures.show,
    pictures.results,
    line.queue,
    line.cancel,
    me.me,
    me.show_help,
    mydata,
    own_settings,
    server,
    moderation.block,
    moderation.unblock,
    moderation.why,
    stats,
    drain,
)
"""What the tree is built of."""

FORMS: tuple[type[Form], ...] = (EditForm, ReportForm, context.RemixForm)
"""What people fill in."""

BUTTONS: tuple[type[discord.ui.DynamicItem[Any]], ...] = (
    *views.BUTTONS,
    pictures.PageButton,
    PartButton,
    ForgetButton,
    WishButton,
)
"""To be registered before the client connects."""
