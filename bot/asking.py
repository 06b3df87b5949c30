"""From a wish to jobs: with the asker's own defaults, within what the mode allows."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bot import policy
from bot.downloads import download
from bot.errors import NotAllowedError
from bot.permutations import expand
from bot.preferences import Preferences
from bot.records import JobRecord, Kinship, Origin, Owner, Parent
from bot.source_images import MAX_BYTES
from bot.speech import tr
from bot.studio import Studio
from bot.wishes import Wish, fitted, read_wish
from engine.errors import DreamLabError
from engine.jobs import RequestDraft
from modes.catalog import ModeCatalog
from modes.mode_config import ModeConfig

FETCHED_AT_ONCE = 8
"""Pictures to start from that are in memory, or on their way there, as files."""


class StaleWishError(DreamLabError):
    """What was to be confirmed is not there any more."""

    def __init__(self) -> None:
        super().__init__(
            tr(
                "This is no longer valid: it was confirmed or taken back before, or too long ago. "
                "Please ask once more."
            )
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """One of the requests that a wish asks for.

    Attributes:
        draft: within what its mode allows; its picture comes at the end.
        notes: what the asker is told of it.
    """

    draft: RequestDraft
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> int:
        """How many it asks for."""
        count = self.draft.count
        return count if isinstance(count, int) else 1


class Asking:
    """Makes requests of wishes."""

    def __init__(self, studio: Studio, catalog: ModeCatalog, most: int) -> None:
        """Takes what it uses.

        Args:
            studio: the service.
            catalog: the modes.
            most: requests that one wish may ask for.
        """
        self._studio = studio
        self._catalog = catalog
        self._most = most
        self._fetching = asyncio.Semaphore(FETCHED_AT_ONCE)

    def combinations(self, wish: Wish) -> list[str]:
        """Returns the prompts that a wish asks for: several where braces have it so.

        Raises:
            RequestError: there are too many.
        """
        return [wish.prompt] if wish.is_plain else expand(wish.prompt, self._most)

    async def read(self, wish: Wish, owner: Owner, origin: Origin) -> list[Asked]:
        """Returns what a wish asks for: several requests where braces have it so.

        Raises:
            RequestError: something in it can't be read.
        """
        own = await self._studio.members.preferences(owner.id)
        asked = []
        for prompt in self.combinations(wish):
            one, notes = read_wish(replace(wish, prompt=prompt))
            mode, chosen = await self._mode(one, own, owner, origin)
            draft, changed = fitted(one, mode, own.size)
            asked.append(Asked(draft, (*notes, *chosen, *changed)))
        return asked

    async def submit(
        self, wish: Wish, asked: Sequence[Asked], owner: Owner, origin: Origin
    ) -> list[JobRecord]:
        """Stores and queues what a wish asks for, all of it or nothing.

        Args:
            wish: with the picture to start from.
            asked: as `read` returned it.
            owner: who asks.
            origin: from where; its address gets the notes.

        Raises:
            NotAllowedError: they may not; nothing was stored.
            DreamLabError: something else prevents it; likewise.
        """
        origins = [
            replace(origin, address={**origin.address, "notes": list(one.notes)}) for one in asked
        ]
        parent = None
        if wish.parent_id is not None:
            parent = Parent(wish.parent_id, wish.parent_number, Kinship.REMIX)
        drafts = [one.draft for one in asked]
        if not wish.has_image:
            return await self._studio.submit_all(drafts, owner, origins, parent)
        # Nobody has files fetched who is refused anyway, and nobody too many of them at once.
        standing = await self._studio.house.standing(origin.place, owner.id)
        if refusal := policy.block_refusal(standing):
            raise NotAllowedError(refusal)
        async with self._fetching:
            image = await self._image(wish)
            drafts = [replace(draft, image=image) for draft in drafts]
            return await self._studio.submit_all(drafts, owner, origins, parent)

    async def keep(self, wish: Wish, owner: Owner) -> str:
        """Has a wish wait for a word of its asker's; returns its id."""
        return await self._studio.members.keep_wish(wish, owner.id)

    async def draw(self, wish_id: str, owner: Owner, origin: Origin) -> list[JobRecord]:
        """Submits a wish that waited; only the first of several that try.

        Raises:
            StaleWishError: it does not wait any more.
            DreamLabError: as `submit`; then, and after any other error, it goes on waiting.
        """
        owner_id, wish = await self.kept(wish_id)
        await self.take(wish_id)
        try:
            asked = await self.read(wish, owner, origin)
            return await self.submit(wish, asked, owner, origin)
        except Exception:  # whatever it was, nothing was stored
            await self._studio.members.keep_wish(wish, owner_id, wish_id)
            raise

    async def kept(self, wish_id: str) -> tuple[str, Wish]:
        """Returns a wish that waits, and whose it is.

        Raises:
            StaleWishError: there is none (any more).
        """
        found = await self._studio.members.kept_wish(wish_id)
        if found is None:
            raise StaleWishError
        return found

    async def take(self, wish_id: str) -> None:
        """Ends a wish's waiting: only the first of several gets it.

        Raises:
            StaleWishError: it was ended before.
        """
        if not await self._studio.members.drop_wish(wish_id):
            raise StaleWishError

    async def _mode(
        self, wish: Wish, own: Preferences, owner: Owner, origin: Origin
    ) -> tuple[ModeConfig, tuple[str, ...]]:
        """Returns what is drawn with, and a note where it is not the asker's own choice."""
        if wish.mode:
            return self.named(wish.mode), ()
        rules = (await self._studio.house.standing(origin.place, owner.id)).rules
        wanted = [name for name in (wish.like_mode, own.mode) if name]
        for name in wanted:
            mode = self._catalog.modes.get(name)
            if mode and not (
                policy.mode_refusal(mode, owner)
                or policy.place_mode_refusal(rules, mode, owner)
                or policy.nsfw_refusal(rules, mode, origin)
            ):
                return mode, ()
        mode = await self._studio.choices.mode_of(origin.place, origin.channels)
        if not wanted:
            return mode, ()
        return mode, (f"mode: {mode.title} instead of {wanted[0]}, which is not to be had here",)

    def named(self, name: str) -> ModeConfig:
        """Returns a mode by its name, or as people write that or its title.

        Raises:
            UnknownModeError: there is none.
        """
        if mode := self._catalog.modes.get(name):
            return mode
        wanted = name.strip().casefold()
        for mode in self._catalog.modes.values():
            if wanted in (mode.name.casefold(), mode.title.casefold()):
                return mode
        return self._catalog.get(name)

    async def _image(self, wish: Wish) -> bytes | None:
        if wish.image_id is not None:
            image = await self._studio.image(wish.image_id)
            try:
                return await asyncio.to_thread(self._studio.image_path(image).read_bytes)
            except FileNotFoundError:
                raise DreamLabError("The picture to start from was deleted.") from None
        if wish.image_url is None:
            return None
        # A byte more than the studio takes is enough for it to say so.
        return await download(wish.image_url, MAX_BYTES)
