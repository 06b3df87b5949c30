"""Families of pictures: what was made of what, to be walked up and down."""

from collections import deque

from bot.records import JobRecord, Kinship, Parent
from bot.store import Store


class Lineage:
    """What the store knows of parents and children."""

    def __init__(self, store: Store) -> None:
        """Takes the store, open."""
        self._store = store

    async def parent(self, job: JobRecord) -> JobRecord | None:
        """Returns what a job was made of; None for nothing, or where that was forgotten."""
        return await self._store.get(job.parent.job_id) if job.parent else None

    async def children(self, job_id: str) -> list[JobRecord]:
        """Returns what was made of a job's pictures and came to something, oldest first."""
        return await self._store.children(job_id)

    async def family(self, job: JobRecord, most: int) -> list[JobRecord]:
        """Returns a job's whole family as far as it is its owner's, parents before children.

        Args:
            job: any member.
            most: members; where there are more, the job's ancestors and the nearest to the eldest.
        """
        line = [job]
        while len(line) < most:
            parent = await self.parent(line[0])
            if parent is None or parent.owner.id != job.owner.id:
                break
            line.insert(0, parent)
        found = {member.id: member for member in line}
        left = deque(line)
        while left and len(found) < most:
            for child in await self.children(left.popleft().id):
                if child.id in found or child.owner.id != job.owner.id or len(found) >= most:
                    continue
                found[child.id] = child
                left.append(child)
        return list(found.values())

    async def only_child(self, parent: Parent) -> JobRecord | None:
        """Returns the child that there may be but one of; None where there is none."""
        return await self._store.only_child(parent)

    async def used(self, job_id: str) -> frozenset[tuple[Kinship, int]]:
        """Returns which pictures of a job have their one child, and of which kind."""
        return await self._store.used(job_id)

    async def unenlarged(self, job: JobRecord) -> JobRecord:
        """Returns the job whose picture an enlarged one shows; the job itself for all others."""
        while job.parent and job.parent.kinship is Kinship.UPSCALE:
            parent = await self.parent(job)
            if parent is None:
                break
            job = parent
        return job
