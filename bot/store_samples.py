"""The store's rows of sample pictures: what modes draw, to be seen before anything is asked for."""

from bot.store_access import StoreAccess

_LOOKED_AT = 500  # pictures of an owner, so that it takes no longer with more of them


class SampleRows(StoreAccess):
    """A picture for each mode."""

    async def samples(self) -> dict[str, str]:
        """Returns the ids of the pictures that were chosen for everybody, by mode."""
        rows = await self._rows("SELECT mode, image_id FROM samples")
        return {row["mode"]: row["image_id"] for row in rows}

    async def newest_images(self, owner_id: str) -> dict[str, str]:
        """Returns the ids of an owner's newest pictures, by mode; of a request it is the first."""
        rows = await self._rows(
            "SELECT json_extract(jobs.request, '$.mode') AS mode, images.id AS image_id"
            " FROM jobs JOIN images ON images.job_id = jobs.id WHERE jobs.owner_id = ?"
            " ORDER BY jobs.sequence DESC, images.number LIMIT ?",
            owner_id,
            _LOOKED_AT,
        )
        newest: dict[str, str] = {}
        for row in rows:
            newest.setdefault(row["mode"], row["image_id"])
        return newest

    async def is_sample(self, image_id: str) -> bool:
        """Says whether a picture was chosen for everybody."""
        return await self._row("SELECT 1 FROM samples WHERE image_id = ?", image_id) is not None

    async def choose_sample(self, mode: str, image_id: str) -> None:
        """Makes a picture the one of a mode."""
        await self._execute(
            "INSERT INTO samples (mode, image_id) VALUES (?, ?)"
            " ON CONFLICT (mode) DO UPDATE SET image_id = excluded.image_id",
            mode,
            image_id,
        )

    async def forget_sample(self, image_id: str) -> None:
        """Makes a picture nobody's sample; one that is none is no error."""
        await self._execute("DELETE FROM samples WHERE image_id = ?", image_id)
