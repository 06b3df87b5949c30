"""Archives of somebody's data: everything once, each small enough; pure but for the files."""

import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.export import Exporter
from bot.records import ImageRecord, JobRecord
from tests.records_kit import a_job, a_request, done

LIMIT = 20_000


def jobs_of(folder: Path, shape: list[list[int]]) -> list[JobRecord]:
    """Returns jobs with files of these sizes in bytes."""
    jobs = []
    for number, sizes in enumerate(shape):
        images = tuple(
            ImageRecord(f"i{number}-{seed}", f"j{number}", f"{number}-{seed}.png", seed, 64, 64)
            for seed in range(len(sizes))
        )
        for image, size in zip(images, sizes, strict=True):
            (folder / image.path).write_bytes(b"x" * size)
        prompt = "\u2603" * 300
        job = done(a_job(id=f"j{number}", images=images, request=a_request(prompt=prompt)))
        jobs.append(job)
    return jobs


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(1, 25_000), max_size=4), min_size=1, max_size=8))
def test_every_picture_is_in_one_part_or_named_as_too_large(shape: list[list[int]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        exporter = Exporter(lambda image: folder / image.path, lambda path: folder / path)
        jobs = jobs_of(folder, shape)
        packed: list[str] = []
        left_out: set[str] = set()
        asked: list[str] = []
        number, total = 1, 1
        while number <= total:
            part = exporter.part(jobs, number, LIMIT)
            total = part.total
            assert part.number == number
            assert len(part.content) <= LIMIT
            with zipfile.ZipFile(io.BytesIO(part.content)) as archive:
                told = json.loads(archive.read("requests.json"))
                packed += [file for file in archive.namelist() if file != "requests.json"]
            asked += [entry["id"] for entry in told]
            left_out |= {file for entry in told for file in entry["too_large"]}
            number += 1

    everything = [f"pictures/{job.id}-{image.seed}.png" for job in jobs for image in job.images]
    assert list(dict.fromkeys(asked)) == [job.id for job in jobs]
    assert len(packed) == len(set(packed))
    assert sorted([*packed, *left_out]) == sorted(everything)
    small = {
        f"pictures/j{j}-{s}.png"
        for j, job in enumerate(shape)
        for s, n in enumerate(job)
        if n < 12_000
    }
    assert small <= set(packed)


def test_a_part_that_is_not_there_is_the_last(tmp_path: Path) -> None:
    exporter = Exporter(lambda image: tmp_path / image.path, lambda path: tmp_path / path)
    part = exporter.part(jobs_of(tmp_path, [[10], [10]]), 999_999, LIMIT)
    assert (part.number, part.total) == (1, 1)


def test_files_that_are_gone_are_left_out(tmp_path: Path) -> None:
    exporter = Exporter(lambda image: tmp_path / "gone", lambda path: tmp_path / path)
    part = exporter.part(jobs_of(tmp_path, [[10]]), 1, LIMIT)
    with zipfile.ZipFile(io.BytesIO(part.content)) as archive:
        assert archive.namelist() == ["requests.json"]
