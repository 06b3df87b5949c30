"""What fits on a device, and what is said before it is tried."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import RequestError, TooLargeError, TooLongError
from engine.jobs import GenerationRequest, ModelSpec, Sampler
from engine.measured_file import MeasuredFile
from engine.memory_watch import MOST_KEPT, MemoryWatch
from engine.need import Need
from engine.pace import Act
from engine.room import DECODE_BYTES, PASS_BYTES, TILE, Space, smaller
from engine.testing import FakeExecutor
from engine.worker_pool import WorkerPool
from modes.mode_config import ModeConfig
from tests.worker_kit import DEMO, SmallRegistry, ask

GB = 10**9
KEY = DEMO.key


def space(total: int = 8 * GB, **changes: object) -> Space:
    return replace(Space(total, 2, {KEY: 2 * GB}), **changes)  # type: ignore[arg-type]


def asked(side: int, **changes: object) -> GenerationRequest:
    return ask(width=side, height=side, **changes)


def test_what_fits_is_not_refused_and_what_does_not_has_a_size_that_does() -> None:
    assert space().most_pixels(Need.of(asked(1024))) is None
    most = space().most_pixels(Need.of(asked(8192)))
    assert most is not None
    assert most < 8192 * 8192
    assert space().most_pixels(Need.of(asked(int(most**0.5)))) is None
    # Just what is left: the weights and 5 % of the memory are not.
    assert most == pytest.approx((0.95 * 8 * GB - 2 * GB) / (2 * PASS_BYTES), rel=0.01)


def test_what_was_measured_counts_more_than_what_any_family_takes() -> None:
    hungry = space(peaks={(KEY, 512 * 512): GB // 2, ("other", 1024 * 1024): 1})
    assert hungry.beside(KEY, 512 * 512, 2) == GB
    assert hungry.beside(KEY, 512 * 512, 1) == GB // 2  # without guidance
    assert hungry.beside(KEY, 1024 * 1024, 2) == 4 * GB
    assert hungry.most_pixels(Need.of(asked(1536))) == pytest.approx(5.6 * 512 * 512, rel=0.01)


def test_a_row_less_and_wider_numbers_count() -> None:
    assert space().beside("new", 2048**2, 1) == PASS_BYTES * 2048**2
    assert space(number=4).beside("new", 2048**2, 2) == 4 * PASS_BYTES * 2048**2
    assert space().beside("new", 64 * 64, 2) == DECODE_BYTES * 64 * 64
    assert space().beside("new", 4096**2, 0) == DECODE_BYTES * TILE


def test_nothing_is_refused_that_nobody_knows() -> None:
    huge = asked(8192)
    assert Space().most_pixels(Need.of(huge)) is None
    assert space(held={}).most_pixels(Need.of(huge)) is None
    assert space().most_pixels(Need.of(replace(huge, refiner=ModelSpec(Path("other"))))) is None


def test_what_no_model_draws_needs_no_room() -> None:
    enlarged = replace(asked(8192), source=Path("source.png"), strength=0.0)
    assert space().most_pixels(Need.of(enlarged)) is None
    assert space(held={KEY: 9 * GB}).most_pixels(Need((DEMO,))) is None  # a load says so itself


def test_a_refiner_takes_its_room_as_well() -> None:
    refiner = ModelSpec(Path("other"))
    both = space(held={KEY: 2 * GB, refiner.key: 5 * GB})
    alone, refined = asked(2048), replace(asked(2048), refiner=refiner)
    assert both.most_pixels(Need.of(alone)) is None
    assert both.most_pixels(Need.of(refined)) is not None
    none = space(held={KEY: 2 * GB, refiner.key: 9 * GB})
    assert none.most_pixels(Need.of(refined)) == 0


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [
        ((2048, 2048), 1024 * 1024, (1024, 1024)),
        ((2048, 1024), 1024 * 1024, (1408, 704)),
        ((2048, 2048), 63 * 63, None),
        ((512, 512), 10**9, (512, 512)),
        ((4096, 64), 4096 * 32, None),
    ],
)
def test_a_smaller_size_keeps_the_aspect(
    size: tuple[int, int], pixels: int, expected: tuple[int, int] | None
) -> None:
    assert smaller(*size, pixels) == expected


def test_a_mode_proposes_only_what_may_be_asked_for() -> None:
    mode = ModeConfig("a", DEMO, min_size=512)
    assert mode.smaller(2048, 2048, 1024 * 1024) == (1024, 1024)
    assert mode.smaller(2048, 2048, 500 * 500) is None
    listed = replace(mode, sizes=((512, 768), (768, 768), (2048, 2048)))
    assert listed.smaller(2048, 2048, 1024 * 1024) == (768, 768)
    assert listed.smaller(2048, 2048, 1000) is None


class NoModes:
    """A pool's source of modes that is never asked."""


async def pool_of(*spaces: Space, job_timeout: float | None = None) -> WorkerPool:
    executors = [FakeExecutor(f"fake:{number}") for number in range(len(spaces))]
    pool = WorkerPool(executors, NoModes(), job_timeout=job_timeout)  # type: ignore[arg-type]
    for executor, each in zip(executors, spaces, strict=True):
        executor.pace.space = each
    await pool.start()
    for executor in executors:
        await executor.until(lambda executor=executor: executor.alive)  # type: ignore[misc]
    while not all(lane.is_ready for lane in pool._lanes):
        await executors[0].until(lambda: True)
    return pool


async def test_a_size_is_refused_if_no_device_has_room_for_it() -> None:
    small, large = space(4 * GB), space(64 * GB)
    one, both = await pool_of(small), await pool_of(small, large)
    unknown = await pool_of(small, Space())

    with pytest.raises(TooLargeError) as refused:
        one.check(asked(4096))

    assert refused.value.fits == (2368, 2368)
    assert str(refused.value) == (
        "4096x4096 is too big for the memory that this bot draws with. 2368x2368 fits."
    )
    assert isinstance(refused.value, RequestError)
    one.check(asked(2368))
    both.check(asked(4096))
    unknown.check(asked(4096))
    with pytest.raises(TooLargeError, match="No smaller size of this mode fits"):
        one.check(asked(4096), lambda *_: None)
    for pool in (one, both, unknown):
        await pool.shutdown()


async def test_what_takes_longer_than_a_request_may_is_refused() -> None:
    pool = await pool_of(space(), job_timeout=60)
    pace = pool._lanes[0].executor.pace
    request = ask(steps=100, sampler=Sampler.EULER)
    pool.check(request)  # nobody knows what it takes
    pixels = request.width * request.height
    pace.note(Act.BEGIN, KEY, 0.5)
    pace.note(Act.PASS, KEY, 2.0, pixels=pixels, rows=2)
    pace.note(Act.DECODE, KEY, 1.0, pixels=pixels)

    with pytest.raises(TooLongError) as refused:
        pool.check(request)

    assert refused.value.seconds == pytest.approx(201.5)
    assert str(refused.value) == (
        "Drawing this would take about 3 minutes here; a request may take 60 seconds at most. A "
        "smaller picture, fewer of them or fewer steps take less."
    )
    pool.check(replace(request, steps=20))
    await pool.shutdown()


def test_what_passes_take_is_remembered_and_what_is_broken_is_not(tmp_path: Path) -> None:
    file = MeasuredFile(tmp_path / "measured.json")
    watch = MemoryWatch("cpu", SmallRegistry(8 * GB), file)
    watch.note("one", 512 * 512, 200, 2)
    watch.note("one", 512 * 512, 50, 1)
    watch.note("one", 512 * 512, 800, 8)  # a pass that was filled up
    watch.note("a model with blanks", 64 * 64, 7, 1)
    file.write(
        "bytes of a row beside the weights on cpu",
        {
            **file.read("bytes of a row beside the weights on cpu", lambda entry: entry),
            "x one": 1,
            "0 one": 1,
            "-5 one": 1,
            "9999999999999 one": 1,
            "64 one": -1,
            "65 one": "1",
        },
    )

    again = MemoryWatch("cpu", SmallRegistry(8 * GB), file).space()

    assert again.peaks == {("one", 512 * 512): 100, ("a model with blanks", 64 * 64): 7}
    assert again.total == 8 * GB
    for number in range(MOST_KEPT + 5):
        watch.note("one", 8 * (number + 1), 1, 1)
    assert len(watch.space().peaks) == MOST_KEPT


def test_an_error_of_size_survives_its_way_between_processes() -> None:
    import pickle

    for error in (TooLargeError(4096, 4096, (1024, 1024)), TooLongError(7200, 60)):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
