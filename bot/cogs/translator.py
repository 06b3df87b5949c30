"""Commands in the languages that Discord shows them in."""

import discord
from discord import app_commands
from discord.app_commands import TranslationContextLocation as Location

from bot.speech import LANGUAGES, catalog

_NAMES = frozenset(
    {
        Location.command_name,
        Location.group_name,
        Location.parameter_name,
        Location.choice_name,
    }
)


class Translator(app_commands.Translator):
    """Looks names and descriptions up in the languages' files."""

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        """Returns what Discord shows; None leaves it in English."""
        language = LANGUAGES.get(locale.value)
        if language is None:
            return None
        part = "names" if context.location in _NAMES else "texts"
        return catalog(language)[part].get(string.message)
