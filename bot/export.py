"""Everything that is kept of somebody, as .zip files small enough to be sent."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.preferences import Preferences
from bot.records import ImageRecord, JobRecord
from bot.wishes import Wish

_FRAME = 1024  # bytes around a file in an archive, generously


@dataclass(frozen=True, slots=True)
class Part:
    """One of the archives.

    Attributes:
        number: 1 is the first.
        total: how many there are.
        content: the archive.
    """

    number: int
    total: int
    content: bytes


@dataclass(slots=True)
class _Piece:
    """A request in an archive, and those of its files that are in there."""

    entry: dict[str, Any]
    files: dict[str, Path]


class Exporter:
    """Packs jobs, oldest first; each archive is whole in itself. All methods block."""

    def __init__(
        self, image_path: Callable[[ImageRecord], Path], source_path: Callable[[Path], Path]
    ) -> None:
        """Takes `ImageFolder.path` and `ImageFolder.source_path`."""
        self._image_path = image_path
        self._source_path = source_path

    def part(
        self,
        jobs: Sequence[JobRecord],
        number: int,
        limit: int,
        own: Preferences | None = None,
        wishes: Sequence[Wish] = (),
    ) -> Part:
        """Returns one of the archives; the last where there are fewer.

        Args:
            jobs: all of somebody's, oldest first.
            number: 1 is the first.
            limit: bytes that one may have. A picture that is larger by itself is left out, and
                the archive says so.
            own: their defaults, which are in the first.
            wishes: what they are still to confirm, likewise.
        """
        bins = self._bins(jobs, limit)
        number = min(max(number, 1), len(bins))
        told = {"settings.json": _json(asdict(own))} if own and own != Preferences() else {}
        if wishes:
            told["unconfirmed.json"] = _json([asdict(wish) for wish in wishes])
        more = told if number == 1 else {}
        return Part(number, len(bins), _packed(bins[number - 1], more))

    def _bins(self, jobs: Sequence[JobRecord], limit: int) -> list[list[_Piece]]:
        bins: list[list[_Piece]] = [[]]
        room = limit - _FRAME
        for job in jobs:
            entry = _entry(job)
            need = len(json.dumps(entry)) * 2 + _FRAME
            left_out: list[str] = []
            piece: _Piece | None = None
            for name, path in [("", None), *self._files(job).items()]:
                size = path.stat().st_size + _FRAME if path and path.is_file() else 0
                if path and not size:
                    continue  # deleted meanwhile
                if size > limit - need - _FRAME:
                    left_out.append(name)
                    continue
                if piece is None or size > room:
                    if room < need + size:
                        bins.append([])
                        room = limit - _FRAME
                    piece = _Piece({**entry, "too_large": left_out}, {})
                    bins[-1].append(piece)
                    room -= need
                if path:
                    piece.files[name] = path
                    room -= size
        return bins

    def _files(self, job: JobRecord) -> dict[str, Path]:
        files = {
            f"pictures/{job.id}-{image.seed}.png": self._image_path(image) for image in job.images
        }
        if source := job.request.source:
            files[f"sources/{source.name}"] = self._source_path(source)
        return files


def _packed(pieces: Sequence[_Piece], more: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for piece in pieces:
            for name, path in piece.files.items():
                if name not in archive.namelist() and path.is_file():
                    archive.write(path, name)  # PNG is as small as it gets
        told = [{**piece.entry, "files": list(piece.files)} for piece in pieces]
        for name, text in {"requests.json": _json(told), **more}.items():
            archive.writestr(name, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _entry(job: JobRecord) -> dict[str, Any]:
    """Returns a request as its asker may have it: no token, no path of this machine."""
    request = job.request
    return {
        "id": job.id,
        "name": job.owner.name,
        "place": job.origin.place,
        "asked_at": job.created_at.isoformat(),
        "ended_at": job.finished_at.isoformat() if job.finished_at else None,
        "status": job.status.value,
        "error": job.error,
        "mode": request.mode,
        "prompt": request.shown_prompt,
        "negative_prompt": request.shown_negative,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "sampler": request.sampler.value,
        "seed": request.seed,
        "count": request.count,
        "variation_seed": request.variation_seed,
        "strength": request.strength if request.source else None,
        "made_of": job.parent_id,
        "kinship": job.parent.kinship.value if job.parent else None,
        "picture": job.parent.number if job.parent else None,
        "note": job.note,
    }
