"""Edits of the modes file: the entry says what was asked, every other character stays."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UnknownModeError
from engine.jobs import Sampler
from modes.modes_editor import remove_mode, set_mode
from modes.modes_file import ModesFileError, load_modes

SHIPPED = Path(__file__).parent.parent / "modes" / "modes.yaml"
TEXT = """\
# Ours.
model_root: m   # where they are

default_mode: a
modes:
  # The first.
  a:
    model: x.safetensors  # the best
    # Quick enough.
    default_steps: 20     # was 25
    metadata:
      tags:
        - one
        - 'two'  # quoted

  # The second.
  b: {model: "y.safetensors", title: B}

  c:
    title: >-
      folded
      text
    model: z.safetensors
# The end.
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "modes.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def edited(path: Path) -> str:
    return path.read_bytes().decode()


A: dict[str, Any] = {
    "model": "x.safetensors",
    "default_steps": 20,
    "metadata": {"tags": ["one", "two"]},
}


def test_a_changed_value_changes_its_own_characters_alone(path: Path) -> None:
    file = set_mode(path, "a", {**A, "default_steps": 30})
    assert edited(path) == TEXT.replace("default_steps: 20 ", "default_steps: 30 ")
    assert file.modes["a"].default_steps == 30
    assert file == load_modes(path)


def test_the_same_values_change_nothing(path: Path) -> None:
    set_mode(path, "a", A)
    assert edited(path) == TEXT


def test_keys_come_and_go_and_comments_stay(path: Path) -> None:
    set_mode(
        path, "a", {"model": "x.safetensors", "sizes": ["512x768"], "nsfw": True, "title": None}
    )
    assert edited(path) == TEXT.replace("    default_steps: 20     # was 25\n", "").replace(
        """    metadata:
      tags:
        - one
        - 'two'  # quoted
""",
        """    sizes: ["512x768"]
    nsfw: true
""",
    )


def test_values_that_take_several_lines_are_exchanged_whole(path: Path) -> None:
    set_mode(path, "a", {**A, "metadata": {"tags": [1, "on"]}})
    set_mode(path, "c", {"model": "z.safetensors", "title": "Other: text"})
    assert edited(path) == TEXT.replace(
        """    metadata:
      tags:
        - one
        - 'two'  # quoted
""",
        """    metadata: {tags: [1, "on"]}
""",
    ).replace(
        """    title: >-
      folded
      text
""",
        """    title: "Other: text"
""",
    )


def test_an_entry_between_braces_gets_lines_of_its_own(path: Path) -> None:
    set_mode(path, "b", {"model": "y.safetensors", "loras": [{"path": "l", "strength": 0.5}]})
    assert edited(path) == TEXT.replace(
        """  b: {model: "y.safetensors", title: B}
""",
        """  b:
    model: y.safetensors
    loras: [{path: l, strength: 0.5}]
""",
    )


def test_a_new_mode_stands_behind_the_last(path: Path) -> None:
    file = set_mode(
        path, "new.one", {"model": "checkpoints/n.safetensors", "samplers": ["Euler a"]}
    )
    assert edited(path) == TEXT.replace(
        """# The end.
""",
        """
  new.one:
    model: checkpoints/n.safetensors
    samplers: [Euler a]
# The end.
""",
    )
    assert list(file.modes) == ["a", "b", "c", "new.one"]
    assert file.modes["new.one"].samplers == (Sampler.EULER_A,)


def test_a_removed_mode_takes_nothing_else_with_it(path: Path) -> None:
    remove_mode(path, "b")
    assert edited(path) == TEXT.replace('  b: {model: "y.safetensors", title: B}\n', "")
    file = remove_mode(path, "c")
    assert edited(path) == TEXT.partition("  b: ")[0] + "\n# The end.\n"
    assert list(file.modes) == ["a"]


def test_of_two_blank_lines_around_a_removed_mode_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "modes.yaml"
    entries = [f"  {name}:\n    model: {name}\n" for name in "abc"]
    head = "model_root: m\ndefault_mode: a\nmodes:\n"
    path.write_text(head + "\n".join(entries))
    remove_mode(path, "b")
    assert edited(path) == head + "\n".join([entries[0], entries[2]])


def test_every_key_can_be_set_and_changed(path: Path) -> None:
    values: dict[str, Any] = {
        "model": "x.safetensors",
        "vae": "vae/v.safetensors",
        "refiner": {"model": "r.safetensors", "switch_at": 0.7},
        "clip_skip": 2,
        "loras_allowed": ["snow.safetensors", {"path": "n.safetensors", "name": "night: 2"}],
        "max_loras": 2,
        "max_lora_strength": 1.5,
        "allowed_roles": ["Artists", "80351110224678912", "@everyone"],
    }
    with pytest.raises(ModesFileError, match="'night: 2'"):
        set_mode(path, "a", values)
    assert edited(path) == TEXT
    values["loras_allowed"][1]["name"] = "night"
    mode = set_mode(path, "a", values).modes["a"]
    assert (mode.clip_skip, mode.refiner_from, mode.max_loras) == (2, 0.7, 2)
    assert [lora.name for lora in mode.loras_allowed] == ["snow", "night"]
    assert mode.allowed_roles == ("Artists", "80351110224678912", "@everyone")
    once = edited(path)
    assert set_mode(path, "a", values).modes["a"] == mode
    assert edited(path) == once
    changed = set_mode(path, "a", values | {"loras_allowed": "*", "refiner": "r.safetensors"})
    assert changed.modes["a"].lora_folder is not None
    assert changed.modes["a"].refiner_from == 0.8
    assert 'loras_allowed: "*"' in edited(path)


def test_the_shipped_file_keeps_its_explanations(tmp_path: Path) -> None:
    path = tmp_path / "modes.yaml"
    shutil.copy(SHIPPED, path)
    before = edited(path)
    set_mode(path, "mine", {"model": "checkpoints/mine.safetensors"})
    assert (
        edited(path).replace("\n  mine:\n    model: checkpoints/mine.safetensors\n", "") == before
    )
    remove_mode(path, "mine")
    assert [line for line in edited(path).split("\n") if line] == [
        line for line in before.split("\n") if line
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("ended", [False, True])
def test_line_ends_and_byte_order_marks_stay(
    tmp_path: Path, newline: str, bom: str, ended: bool
) -> None:
    path = tmp_path / "modes.yaml"
    lines = [
        "model_root: m",
        "modes:",
        "    a:",
        "      title: Schön \N{SPARKLES} # gut",
        "      model: x",
    ]
    end = newline if ended else ""
    path.write_bytes((bom + newline.join(lines) + end).encode())
    set_mode(path, "a", {"title": "New", "model": "x", "nsfw": False})
    lines[3] = "      title: New # gut"
    assert edited(path) == bom + newline.join([*lines, "      nsfw: false"]) + end


def test_a_link_stays_one_and_the_rights_stay(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    link = tmp_path / "elsewhere" / "modes.yaml"
    link.parent.mkdir()
    link.symlink_to(path)
    set_mode(link, "a", {"model": "q"})
    assert link.is_symlink()
    assert load_modes(path).modes["a"].model.path.name == "q"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "elsewhere",
        "modes.yaml",
    ]  # no leftovers


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("a", {"model": "x", "default_steps": 0}, "modes.a.default_steps: '0' is not allowed"),
        ("a", {"model": "x", "defualt_steps": 1}, "unknown key"),
        ("a", {}, "modes.a.model: missing"),
        ("new", {"title": "x"}, "modes.new.model: missing"),
        ("a b", {"model": "x"}, "not allowed as a name"),
        ("x:\n  y", {"model": "x"}, "not allowed as a name"),
        ("", {"model": "x"}, "a name before the colon"),
        ("a", {"model": "x\ndefault_steps: 3"}, "modes.a.model"),
        ("a", {"model": "\ud800"}, "half a character"),
        ("a", {"model": "x", "title": "\0"}, "modes.a.title"),
        ("a", {"model": "x", "metadata": {"n": float("nan")}}, "modes.a"),
        ("a", {"model": "x", "metadata": {"n": 10**30}}, "modes.a"),
        ("a", {"model": "x", "sizes": [[]]}, "modes.a.sizes[0]"),
    ],
    ids=ascii,
)
def test_what_is_not_allowed_is_refused_and_nothing_is_written(
    path: Path, name: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModesFileError) as caught:
        set_mode(path, name, values)
    assert said in str(caught.value)
    assert edited(path) == TEXT


def test_what_is_nested_without_end_is_refused(path: Path) -> None:
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(ModesFileError, match="nested deeper"):
        set_mode(path, "a", {"model": "x", "metadata": {"deep": deep}})


def test_the_default_mode_and_an_unknown_one_are_not_removed(path: Path) -> None:
    with pytest.raises(ModesFileError, match=r"default_mode: 'a' is not allowed\. Allowed: one of"):
        remove_mode(path, "a")
    with pytest.raises(UnknownModeError, match="a, b, c"):
        remove_mode(path, "d")
    assert edited(path) == TEXT


def test_the_only_mode_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "modes.yaml"
    path.write_text("model_root: m\nmodes:\n  a:\n    model: x\n")
    with pytest.raises(ModesFileError, match="modes: missing"):
        remove_mode(path, "a")


def test_a_broken_file_and_one_between_braces_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "modes.yaml"
    for text, said in (
        ("model_root: [", "not YAML"),
        ("model_root: m\nmodes: {a: {model: x}}\n", "between braces"),
        ("{model_root: m, modes: {a: {model: x}}}\n", "between braces"),
    ):
        path.write_text(text)
        with pytest.raises(ModesFileError, match=said):
            set_mode(path, "a", {"model": "y"})
        assert edited(path) == text
    with pytest.raises(ModesFileError, match="No such file"):
        remove_mode(tmp_path / "none.yaml", "a")


PLAIN = st.recursive(
    st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    metadata=st.dictionaries(st.text(max_size=6), PLAIN, max_size=3),
    name=st.sampled_from(["a", "b", "c", "new"]) | st.text(max_size=5),
    title=st.none() | st.text(max_size=12),
)
def test_whatever_is_asked_for_is_there_or_nothing_has_changed(
    tmp_path_factory: pytest.TempPathFactory, metadata: Any, name: str, title: str | None
) -> None:
    path = tmp_path_factory.mktemp("any") / "modes.yaml"
    path.write_text(TEXT, encoding="utf-8")
    before = load_modes(path)
    try:
        file = set_mode(path, name, {"model": "x", "title": title, "metadata": metadata})
    except ModesFileError:
        assert edited(path) == TEXT
        return
    assert file == load_modes(path)
    assert dict(file.modes[name].metadata) == metadata
    assert title is None or file.modes[name].title == title.strip()
    for other in before.modes:
        assert other == name or file.modes[other] == before.modes[other]
    for comment in ("# Ours.", "# where they are", "# The second.", "# The end."):
        assert comment in edited(path)
