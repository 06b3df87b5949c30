import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize

from engine.errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from engine.model_files import (
    MAX_HEADER_BYTES,
    MAX_JSON_VALUES,
    check_shards,
    is_folder,
    read_config,
    read_header,
    shown,
    weight_files,
)
from tests.tiny_models import header_of, safetensors_bytes, write_json, write_tensors

DEMO = Path("models/diffusers/dream-demo")
ONE = {"w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder below which nothing but a file's own mode keeps anybody out, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def no_privileges() -> Iterator[None]:
    """Takes root's right to read everything away, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refusal(path: Path) -> str:
    """Returns the reason for which a file is refused, which must name the file."""
    with pytest.raises(ModelFormatError) as caught:
        read_header(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    return caught.value.reason


def entry(
    dtype: object = "U8", shape: object = (2,), offsets: object = (0, 2)
) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


class TestSoundFiles:
    def test_reads_what_the_safetensors_library_wrote(self) -> None:
        for path in DEMO.rglob("*.safetensors"):
            expected = dict(deserialize(path.read_bytes()))
            found = read_header(path)
            assert found.keys() == expected.keys()
            for name, tensor in found.items():
                assert list(tensor.shape) == expected[name]["shape"]
                assert tensor.dtype == expected[name]["dtype"]
                assert tensor.end - tensor.begin == len(expected[name]["data"])

    def test_leaves_the_metadata_out(self, file: Path) -> None:
        write_tensors(file, {"a": (1, 2)})
        assert set(read_header(file)) == {"a"}

    def test_order_in_the_header_does_not_matter(self, file: Path) -> None:
        header = header_of({"a": (1,), "b": (2,), "c": ()})
        file.write_bytes(safetensors_bytes(dict(reversed(header.items())), bytes(8)))
        assert read_header(file)["b"].begin == 2

    def test_padding_of_the_header_is_fine(self, file: Path) -> None:
        file.write_bytes(safetensors_bytes(json.dumps(ONE).encode() + b"      ", b"ab"))
        assert read_header(file)["w"].shape == (2,)

    def test_empty_tensors_are_fine(self, file: Path) -> None:
        write_tensors(file, {"v_pred": (0,), "a": (2,), "z": (0, 3)})
        assert read_header(file)["v_pred"].shape == (0,)

    def test_reads_no_weights(self, file: Path) -> None:
        terabyte = 2**40
        header = {"w": {"dtype": "U8", "shape": [terabyte], "data_offsets": [0, terabyte]}}
        file.write_bytes(safetensors_bytes(header))
        with file.open("r+b") as sparse:
            sparse.truncate(file.stat().st_size + terabyte)
        assert read_header(file)["w"].end == terabyte


class TestRefusedFiles:
    def test_missing(self, file: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="no such file"):
            read_header(file)

    def test_below_a_file(self, file: Path) -> None:
        file.touch()
        with pytest.raises(ModelNotFoundError):
            read_header(file / "model.safetensors")

    def test_empty(self, file: Path) -> None:
        file.touch()
        assert refusal(file) == "is empty"

    def test_shorter_than_a_length(self, file: Path) -> None:
        file.write_bytes(b"1234567")
        assert "too few" in refusal(file)

    def test_header_cut_off(self, file: Path) -> None:
        file.write_bytes(safetensors_bytes(ONE, b"ab")[:20])
        assert "the download is not complete" in refusal(file)

    def test_weights_cut_off(self, file: Path) -> None:
        file.write_bytes(safetensors_bytes(ONE, b"a"))
        assert refusal(file) == (
            "has 1 bytes of weights where its header tells of 2: the download is not complete"
        )

    def test_weights_appended(self, file: Path) -> None:
        file.write_bytes(safetensors_bytes(ONE, b"abc"))
        assert "something was appended" in refusal(file)

    @pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
    def test_endless_header(self, file: Path, length: int) -> None:
        file.write_bytes(struct.pack("<Q", length) + b"{}")
        assert f"a header of {length} bytes" in refusal(file)

    def test_header_beyond_the_bound_that_the_file_does_have(self, file: Path) -> None:
        file.write_bytes(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        with file.open("r+b") as sparse:
            sparse.truncate(2 * MAX_HEADER_BYTES)
        assert "more than the format's" in refusal(file)

    @pytest.mark.parametrize(
        ("start", "kind"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
            (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
            (b"PK\x03\x04" + bytes(4) + b"\xff" * 40, "pickle"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
            (b"GGUF\x03\x00\x00\x00\xff\xff", "GGUF"),
        ],
    )
    def test_says_what_it_is_instead(self, file: Path, start: bytes, kind: str) -> None:
        file.write_bytes(start)
        assert kind in refusal(file)

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            (b"", "can't be read"),
            (b"{", "can't be read"),
            (b"[]", "is not an object"),
            (b"null", "is not an object"),
            (b"\xff\xfe{}", "no UTF-8 (byte 0)"),
            (b"\xef\xbb\xbf{}", "BOM"),
            (b'{"a": NaN}', "NaN is no JSON number"),
            (b'{"a": -Infinity}', "-Infinity"),
            (b'{"a": ' + b"9" * 5000 + b"}", "can't be read"),
            (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
            (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
            (b'{"a": 1, "a": 2}', "the key 'a' is there more than once"),
            (b'{"__metadata__": {"x": "1", "x": "2"}}', "the key 'x' is there more than once"),
            (b'{"__metadata__": []}', "__metadata__"),
            (b'{"__metadata__": {"x": 1}}', "__metadata__"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_broken_json(self, file: Path, header: bytes, reason: str) -> None:
        file.write_bytes(safetensors_bytes(header))
        assert reason in refusal(file)

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ({"w": []}, "not described by an object"),
            ({"w": None}, "not described by an object"),
            ({"w": {}}, "unknown dtype nothing"),
            (entry(dtype="F7"), "unknown dtype 'F7'"),
            (entry(dtype=["U8"]), "unknown dtype a JSON list of 1"),
            (entry(shape=2), "shape"),
            (entry(shape=[2.0]), "shape"),
            (entry(shape=[True, 2]), "shape"),
            (entry(shape=["2"]), "shape"),
            (entry(shape=[-2]), "shape"),
            (entry(shape=[2**63]), "shape"),
            (entry(shape=[1] * 33), "33 dimensions"),
            (entry(shape=[2**62] * 32), "a huge number bits by dtype and shape"),
            (entry(shape=[3]), "takes 24 bits by dtype and shape, 16 by offsets"),
            (entry(dtype="F16"), "takes 32 bits"),
            (entry(dtype="F4", shape=[3]), "takes 12 bits"),
            (entry(offsets=[0]), "not a begin and an end"),
            (entry(offsets=[0, 1, 2]), "not a begin and an end"),
            (entry(offsets=[2, 0]), "not a begin and an end"),
            (entry(offsets=[-2, 0]), "data_offsets"),
            (entry(offsets="02"), "data_offsets"),
            (entry(offsets=[0, 2e0]), "data_offsets"),
        ],
    )
    def test_tensor_that_contradicts_itself(self, file: Path, header: object, reason: str) -> None:
        file.write_bytes(safetensors_bytes(json.dumps(header).encode(), b"ab"))
        told = refusal(file)
        assert "'w'" in told
        assert reason in told

    @pytest.mark.parametrize(
        ("second", "reason"),
        [((1, 3), "overlaps"), ((3, 5), "gap"), ((0, 2), "overlaps"), ((0, 0), None)],
    )
    def test_tensors_that_do_not_tile(
        self, file: Path, second: tuple[int, int], reason: str | None
    ) -> None:
        begin, end = second
        other = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        file.write_bytes(safetensors_bytes({**ONE, "x": other}, bytes(max(2, end))))
        if reason is None:
            assert set(read_header(file)) == {"w", "x"}
        else:
            assert reason in refusal(file)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("../../etc/passwd", "climbs"),
            ("a/../b", "climbs"),
            ("..\\windows", "climbs"),
            ("/etc/passwd", "climbs"),
            ("a\x00b", "control characters"),
            ("a\nb", "control characters"),
            ("\ud800", "broken Unicode"),
            ("a" * 5000, "a name of 5000 characters"),
        ],
        ids=lambda value: ascii(value)[:20],
    )
    def test_names_that_no_tensor_has(self, file: Path, name: str, reason: str) -> None:
        file.write_bytes(safetensors_bytes({name: ONE["w"]}, b"ab"))
        told = refusal(file)
        assert reason in told
        assert told.isprintable()
        assert len(told) < 200

    @pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl"])
    def test_pickles_are_told_how_to_convert(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"model{suffix}"
        path.write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
        with pytest.raises(UnsupportedModelError, match=r"run code .* Convert .*save_file"):
            read_header(path)

    # diffusers reads .SAFETENSORS as a pickle.
    @pytest.mark.parametrize("name", ["model.gguf", "model", "model.SAFETENSORS"])
    def test_other_suffixes(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.touch()
        with pytest.raises(UnsupportedModelError, match=r"supported are \.safetensors"):
            read_header(path)


class TestOddPlaces:
    def test_folder_with_a_files_name(self, file: Path) -> None:
        file.mkdir()
        assert refusal(file) == "is a folder, not a file"

    def test_pipe_does_not_wait_for_a_writer(self, file: Path) -> None:
        os.mkfifo(file)
        assert refusal(file) == "is a device or pipe, not a file"

    def test_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("m.safetensors")
            assert "not a file" in refusal(Path("m.safetensors"))

    def test_loop_of_links(self, tmp_path: Path, file: Path) -> None:
        other = tmp_path / "other.safetensors"
        file.symlink_to(other)
        other.symlink_to(file)
        assert "can't be read: Too many levels of symbolic links" in refusal(file)

    def test_link_to_nothing(self, tmp_path: Path, file: Path) -> None:
        file.symlink_to(tmp_path / "gone.safetensors")
        with pytest.raises(ModelNotFoundError):
            read_header(file)

    def test_link_to_a_model(self, tmp_path: Path, file: Path) -> None:
        file.symlink_to(write_tensors(tmp_path / "real.safetensors", {"a": (1,)}))
        assert set(read_header(file)) == {"a"}

    def test_name_too_long(self, tmp_path: Path) -> None:
        assert "File name too long" in refusal(tmp_path / ("a" * 300 + ".safetensors"))

    def test_nul_in_the_name(self) -> None:
        with pytest.raises(ModelFormatError, match="no path can look like this"):
            read_header(Path("a\0b.safetensors"))

    def test_unreadable_file(self, open_folder: Path) -> None:
        path = write_tensors(open_folder / "closed.safetensors", {"a": (1,)})
        path.chmod(0)
        with no_privileges():
            assert refusal(path) == "can't be read: Permission denied"

    def test_unreadable_folder(self, open_folder: Path) -> None:
        folder = open_folder / "closed"
        folder.mkdir(mode=0)
        with no_privileges():
            with pytest.raises(ModelFormatError, match="Permission denied"):
                weight_files(folder)
            with pytest.raises(ModelFormatError, match="Permission denied"):
                is_folder(folder / "inner")


class TestConfig:
    def test_reads_an_object(self, tmp_path: Path) -> None:
        assert read_config(write_json(tmp_path / "c.json", {"a": [1]})) == {"a": [1]}

    @pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "nul"])
    def test_refuses_anything_else(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "c.json"
        path.write_text(text)
        with pytest.raises(ModelFormatError):
            read_config(path)

    def test_refuses_a_long_one_unread(self, tmp_path: Path) -> None:
        path = tmp_path / "c.json"
        with path.open("wb") as sparse:
            sparse.truncate(2**40)
        with pytest.raises(ModelFormatError, match="at most 1000000"):
            read_config(path)


class TestWeightFiles:
    def names(self, folder: Path) -> list[str]:
        return [str(file.relative_to(folder)) for file in weight_files(folder)]

    def fill(self, folder: Path, *names: str) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")
        return folder

    def test_a_file_is_its_own(self, file: Path) -> None:
        file.touch()
        assert weight_files(file) == (file,)

    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError):
            weight_files(tmp_path / "none")

    def test_each_component_once(self, tmp_path: Path) -> None:
        self.fill(
            tmp_path,
            "model_index.json",
            "v1-5-pruned.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.bin",
            "text_encoder/model.fp16.safetensors",
            "safety_checker/model.safetensors",
            ".cache/model.safetensors",
        )
        assert self.names(tmp_path) == [
            "text_encoder/model.fp16.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.bin",
        ]

    def test_shards_all_count(self, tmp_path: Path) -> None:
        shards = [f"unet/model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        self.fill(tmp_path, "model_index.json", *shards)
        assert self.names(tmp_path) == shards

    def test_folders_that_no_worker_reads_do_not_count(self, tmp_path: Path) -> None:
        read = [
            f"{part}/model.safetensors"
            for part in ("text_encoder", "text_encoder_2", "unet", "vae")
        ]
        self.fill(
            tmp_path,
            "model_index.json",
            *read,
            "image_encoder/model.safetensors",
            "vae_1_0/diffusion_pytorch_model.safetensors",
            "vae_decoder/openvino_model.bin",
        )
        assert self.names(tmp_path) == read

    def test_a_parts_folder_counts_what_lies_at_its_top(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "config.json", "diffusion_pytorch_model.safetensors", "old/a.bin")
        assert self.names(tmp_path) == ["diffusion_pytorch_model.safetensors"]

    def test_folder_without_an_index(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "a.safetensors", "b.safetensors", "unet/c.safetensors")
        assert self.names(tmp_path) == ["a.safetensors", "b.safetensors", "unet/c.safetensors"]


class TestShards:
    def index(self, folder: Path, weight_map: object) -> Path:
        write_json(folder / "unet" / "m.safetensors.index.json", {"weight_map": weight_map})
        return folder

    def test_all_there(self, tmp_path: Path) -> None:
        write_tensors(tmp_path / "unet" / "m-1.safetensors", {"a": (1,)})
        check_shards(self.index(tmp_path, {"a": "m-1.safetensors"}))

    def test_one_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"m-2\.safetensors"):
            check_shards(self.index(tmp_path, {"a": "m-2.safetensors"}))

    @pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "..", "", "a\\b", "a/b"])
    def test_one_elsewhere(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelFormatError, match="no file in its folder"):
            check_shards(self.index(tmp_path, {"a": name}))

    def test_those_of_a_folder_that_no_worker_reads_may_be_missing(self, tmp_path: Path) -> None:
        self.index(tmp_path, {}).joinpath("unet").rename(tmp_path / "transformer")
        (tmp_path / "transformer" / "m.safetensors.index.json").write_text("{")
        check_shards(tmp_path)

    @pytest.mark.parametrize("weight_map", [None, [], {"a": 1}, {"a": None}])
    def test_index_without_names(self, tmp_path: Path, weight_map: object) -> None:
        with pytest.raises(ModelFormatError, match="weight_map"):
            check_shards(self.index(tmp_path, weight_map))


class TestShown:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("a\nb", "'a\\nb'"),
            ("x" * 100, "'" + "x" * 80 + "'…"),
            (None, "nothing"),
            (7, "7"),
            (10**300, "a huge number"),
            ([1] * 1000, "a JSON list of 1000"),
            ({}, "a JSON object of 0"),
        ],
    )
    def test_is_short_and_printable(self, value: object, expected: str) -> None:
        assert shown(value) == expected


# What a header is made of, sound and not.
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from([2**63, 10**30, 1.5, "U8", "F16", "w", ""])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "U8", "U8", "F16", "F4", "X"]),
        "shape": st.lists(st.integers(0, 3), max_size=2) | _values,
        "data_offsets": st.lists(st.integers(0, 6), min_size=2, max_size=2) | _values,
    }
)
_headers = st.dictionaries(
    st.sampled_from(["a", "b", "c", "__metadata__", "../d"]) | st.text(max_size=3),
    _entries | _values,
    max_size=4,
)


class TestHostileInput:
    @given(content=st.binary(max_size=64))
    @settings(deadline=None)
    def test_any_bytes(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        self.survives(tmp_path_factory, content)

    @given(header=_headers, weights=st.binary(max_size=8))
    @settings(max_examples=300, deadline=None)
    def test_any_header(
        self, tmp_path_factory: pytest.TempPathFactory, header: object, weights: bytes
    ) -> None:
        raw = json.dumps(header).encode()
        self.survives(tmp_path_factory, safetensors_bytes(raw, weights))

    @given(data=st.data())
    @settings(max_examples=300, deadline=None)
    def test_a_sound_file_with_some_bytes_changed(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        content = bytearray(safetensors_bytes(header_of({"a": (2,), "b": (1, 2)}), bytes(8)))
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] = data.draw(st.integers(0, 255) | st.sampled_from(b'{}[],:"0129'))
        cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
        self.survives(tmp_path_factory, bytes(content[:cut]))

    def survives(self, factory: pytest.TempPathFactory, content: bytes) -> None:
        """Reads it or refuses it, and takes nothing that the library refuses."""
        path = factory.getbasetemp() / "hostile.safetensors"
        path.write_bytes(content)
        try:
            found = read_header(path)
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 - either outcome is fine
            return
        library = dict(deserialize(content))
        assert {name: list(t.shape) for name, t in found.items()} == {
            name: tensor["shape"] for name, tensor in library.items()
        }

    @pytest.mark.parametrize("piece", ["[],", "{},", '"",', "0,", "[[[", '{"":'])
    def test_a_header_of_tiny_values_is_refused_before_it_fills_the_memory(
        self, file: Path, piece: str
    ) -> None:
        count = (MAX_JSON_VALUES + 10) // sum(piece.count(mark) for mark in ",[{")
        file.write_bytes(safetensors_bytes(('{"a":[' + piece * (count + 1)).encode()))
        assert "JSON values" in refusal(file)

    def test_the_worst_header_below_the_bound_stays_below_half_a_gigabyte(self, file: Path) -> None:
        pieces = "[]," * (MAX_JSON_VALUES // 2 - 10)
        file.write_bytes(safetensors_bytes(f'{{"a":[{pieces}0]}}'.encode()))
        program = (
            "import resource, sys; from pathlib import Path\n"
            "from engine.errors import ModelFormatError\n"
            "from engine.model_files import read_header\n"
            "resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\n"
            "try: read_header(Path(sys.argv[1]))\n"
            "except ModelFormatError: sys.exit(7)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
        assert done.returncode == 7
