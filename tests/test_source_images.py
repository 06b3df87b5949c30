"""Pictures that people send: whatever it is, a plain PNG comes out or a refusal in words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bot.source_images import MAX_BYTES, MAX_SIDE, MOST_SCANS, SourceImage, read_source
from engine.errors import RequestError

RED, BLUE = (200, 30, 40), (20, 40, 220)


def halves(size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Left red, right blue."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: SourceImage) -> Image.Image:
    with Image.open(io.BytesIO(source.png)) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        assert picture.size == (source.width, source.height)
        return picture.copy()


def refused(content: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        read_source(content)
    assert caught.value.field == "image"
    assert "PNG, JPEG, WebP or GIF" in caught.value.allowed
    return str(caught.value.value)


def near(picture: Image.Image, at: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    seen = picture.convert("RGB").getpixel(at)
    return bool(np.abs(np.subtract(np.array(seen), colour)).max() <= 12)


# What is taken


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("GIF", {}),
    ],
)
def test_every_format_is_read(kind: str, options: dict[str, object]) -> None:
    source = read_source(encoded(halves(), kind, **options))
    picture = pixels(source)
    assert picture.size == (48, 32)
    assert near(picture, (4, 16), RED)
    assert near(picture, (44, 16), BLUE)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(mode: str, kind: str) -> None:
    picture = Image.new("RGB", (16, 16), "white").convert(mode)
    assert near(pixels(read_source(encoded(picture, kind))), (8, 8), (255, 255, 255))
    dark = Image.new("RGB", (16, 16), "black").convert(mode)
    assert near(pixels(read_source(encoded(dark, kind))), (8, 8), (0, 0, 0))


def test_sixteen_bits_keep_their_tones() -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
    read = np.asarray(pixels(read_source(encoded(deep))))[..., 0]
    assert np.abs(read.reshape(-1).astype(int) - np.arange(256)).max() <= 1


def test_what_can_be_seen_through_lies_on_white() -> None:
    clear = Image.new("RGBA", (16, 16), (*RED, 0))
    clear.paste((*BLUE, 255), (8, 0, 16, 16))
    by_palette = halves((16, 16)).quantize(4)
    red = by_palette.getpixel((2, 8))
    for content in (
        encoded(clear),
        encoded(clear, "WEBP", lossless=True),
        encoded(by_palette, "GIF", transparency=red),
        encoded(halves((16, 16)), transparency=RED),
    ):
        picture = pixels(read_source(content))
        assert near(picture, (2, 8), (255, 255, 255))
        assert near(picture, (14, 8), BLUE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_stands_upright_whatever_way_the_camera_was_held(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    source = read_source(encoded(halves(), kind, exif=exif))
    picture = pixels(source)
    assert picture.size == (32, 48)
    assert near(picture, (16, 4), RED)
    assert near(picture, (16, 44), BLUE)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_a_moving_picture_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), BLUE) for _ in range(3)]
    content = encoded(
        Image.new("RGB", (16, 16), RED), kind, save_all=True, append_images=frames, duration=50
    )
    assert near(pixels(read_source(content)), (8, 8), RED)


def test_nothing_but_the_pixels_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home"
    exif.get_ifd(0x8825)[1] = "N"  # a place on earth
    profile = b"\0" * 128 + b"a colour profile"
    content = encoded(
        halves(), "JPEG", exif=exif, comment=b"from me", icc_profile=profile, dpi=(300, 300)
    )
    assert b"from me" in content
    source = read_source(content)
    kinds = []
    offset = 8
    while offset < len(source.png):
        length, kind = struct.unpack_from(">I4s", source.png, offset)
        kinds.append(kind)
        offset += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
    # A PNG's own text and profile go, too.
    assert b"ICC" not in read_source(encoded(halves(), icc_profile=profile)).png


def test_a_large_picture_is_made_smaller_in_its_aspect() -> None:
    source = read_source(encoded(halves((6000, 1500)), "JPEG"))
    assert (source.width, source.height) == (MAX_SIDE, MAX_SIDE // 4)
    assert pixels(source)


def test_a_line_of_pixels_stays_a_picture() -> None:
    source = read_source(encoded(Image.new("RGB", (9000, 1), RED)))
    assert (source.width, source.height) == (MAX_SIDE, 1)


def test_the_same_picture_has_the_same_name_and_another_has_another() -> None:
    once, twice = (read_source(encoded(halves())) for _ in range(2))
    assert once == twice
    assert once.digest == twice.digest
    assert read_source(encoded(halves((48, 48)))).digest != once.digest
    # What differs in its metadata alone is the same picture.
    assert read_source(encoded(halves(), dpi=(72, 72))).digest == once.digest


def test_damaged_orientation_leaves_the_picture_as_it_lies() -> None:
    content = encoded(halves(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert pixels(read_source(content)).size == (48, 32)


# What is refused


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    assert "more than 20 MB" in refused(b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES))


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def webp_claiming(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    def three(value: int) -> bytes:
        return value.to_bytes(3, "little")

    frame = encoded(Image.new("RGB", (16, 16), RED), "WEBP", lossless=True)[12:]
    body = (
        b"WEBP"
        + chunk(b"VP8X", bytes([2, 0, 0, 0]) + three(side - 1) * 2)
        + chunk(b"ANIM", bytes(6))
        + chunk(b"ANMF", three(0) * 2 + three(15) * 2 + three(100) + b"\0" + frame)
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "content",
    [
        png_claiming(8_000, 7_000),
        png_claiming(12_000, 12_000),
        png_claiming(60_000, 60_000),
        png_claiming(2**31 - 1, 2**31 - 1),
        png_claiming(50_000_001, 1),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + encoded(halves(), "GIF")[10:],
        webp_claiming(16383),
    ],
    ids=["56M", "144M", "3.6G", "huge", "line", "gif", "webp"],
)
def test_a_few_bytes_that_stand_for_billions_of_pixels_are_refused(content: bytes) -> None:
    assert len(content) < 1000
    assert "pixels" in refused(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_file_that_ends_too_early_is_refused(kind: str) -> None:
    noise = np.random.default_rng(3).bytes(64 * 64 * 3)
    content = encoded(Image.frombytes("RGB", (64, 64), noise), kind)
    for part in (0.1, 0.5, 0.9):
        assert "damaged" in refused(content[: int(len(content) * part)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"hello", "damaged or of another kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "of another kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "of another kind"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"GIF89a", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"RIFF\0\0\0\0WEBP", "damaged"),
        (png_claiming(0, 0), "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(content: bytes, said: str) -> None:
    assert said in refused(content)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused_however_good(kind: str) -> None:
    assert "another kind" in refused(encoded(halves(), kind))


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]),
    damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_damage_is_either_read_or_refused(kind: str, damage: list[tuple[float, int]]) -> None:
    content = bytearray(encoded(halves(), kind))
    for place, value in damage:
        content[int(place * len(content))] = value
    try:
        source = read_source(bytes(content))
    except RequestError:
        return
    assert pixels(source)


@given(st.binary(max_size=300))
def test_any_bytes_are_either_read_or_refused(content: bytes) -> None:
    refused(content)


def with_scans(scans: int, behind: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan, which makes some numbers finer, comes so many times."""
    jpeg = encoded(halves(), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    start = jpeg[:last]
    return start + jpeg[last:-2] * (scans - start.count(b"\xff\xda")) + b"\xff\xd9" + behind


def test_a_jpeg_of_many_scans_is_refused_since_each_takes_as_long_as_a_picture() -> None:
    read_source(with_scans(MOST_SCANS))

    with pytest.raises(RequestError, match="a picture with too many scans"):
        read_source(with_scans(MOST_SCANS + 1))


def test_a_jpeg_of_nothing_but_segments_is_refused() -> None:
    jpeg = encoded(halves(), "JPEG")
    comments = b"\xff\xfe\x00\x02" * 100_000

    with pytest.raises(RequestError, match="a picture with too many scans"):
        read_source(jpeg[:2] + comments + jpeg[2:])


def test_what_a_camera_writes_before_and_behind_a_picture_is_none_of_its_scans() -> None:
    film = b"\xff\xda" * 500
    jpeg = with_scans(MOST_SCANS, behind=film)
    note = b"\xff\xe2" + (len(film) + 2).to_bytes(2, "big") + film

    assert read_source(jpeg[:2] + note + jpeg[2:]) == read_source(with_scans(MOST_SCANS))


def test_a_real_picture_of_the_project_is_read() -> None:
    shown = sorted((Path(__file__).parent.parent / "docs" / "images").glob("*.png"))
    for path in shown:
        assert pixels(read_source(path.read_bytes()))
