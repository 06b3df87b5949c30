"""The modes file: plain data in, frozen modes out, or everything that is wrong at once."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.remakes import draft_of
from engine.errors import RequestError
from engine.images import request_parameters
from engine.jobs import (
    MAX_SEED,
    Family,
    LoraChoice,
    LoraSpec,
    ModelSpec,
    RequestDraft,
    Sampler,
)
from modes.mode_config import ModeConfig, OfferedLora
from modes.modes_file import (
    MODE_KEYS,
    ModesFile,
    ModesFileError,
    load_fallback,
    load_modes,
    parse_modes,
)
from modes.native_size import NATIVE_SIDES
from tests.tiny_models import write_checkpoint, write_json

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "modes" / "modes.yaml"
PATH = Path("/somewhere/modes.yaml")
SMALL = "model_root: m\nmodes:\n  a:\n    model: x.safetensors\n"


def parsed(mode_lines: str = "", head: str = "model_root: m\n") -> ModesFile:
    body = "".join(f"    {line}\n" for line in mode_lines.splitlines())
    return parse_modes(f"{head}modes:\n  a:\n    model: x.safetensors\n{body}", PATH)


def problems(text: str) -> list[str]:
    with pytest.raises(ModesFileError) as caught:
        parse_modes(text, PATH)
    assert caught.value.problems
    return [str(problem) for problem in caught.value.problems]


def mode(**fields: object) -> ModeConfig:
    return ModeConfig(name="a", model=ModelSpec(Path("x")), **fields)  # type: ignore[arg-type] # each test knows its own


def refused(draft: RequestDraft, config: ModeConfig | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        (config or mode()).build_request(draft)
    return caught.value


# What a good file says


def test_the_shipped_file_names_the_bundled_model_and_has_no_warnings() -> None:
    file = load_modes(SHIPPED)
    demo = file.modes[file.default_mode]
    assert demo.name == "demo"
    assert demo.model.path == ROOT / "models" / "diffusers" / "dream-demo"
    assert demo.missing() == ()
    assert file.warnings == ()
    request = demo.build_request(RequestDraft("a red circle"))
    assert (request.width, request.height) == demo.default_size


def test_the_commented_examples_of_the_shipped_file_are_valid() -> None:
    text = SHIPPED.read_text("utf-8")
    head, _, examples = text.partition("  # dreams:")
    lines = [line.removeprefix("  # ") for line in ("  # dreams:" + examples).splitlines()]
    body = "\n".join(f"  {line}" for line in lines if line.startswith(("dreams", "photo", "  ")))
    file = parse_modes(f"{head}\n{body}", SHIPPED)
    assert set(file.modes) == {"demo", "dreams", "dreams-pixel", "photo"}
    pixel = file.modes["dreams-pixel"]
    assert [lora.adapter_name for lora in pixel.model.loras] == ["soft-light", "pixel"]
    # "Whatever is left out has the value shown here."
    shown = file.modes["dreams"]
    said = {"title", "description", "model", "default_negative", "metadata"}
    kept = {name: getattr(shown, name) for name in said}
    assert shown == ModeConfig("dreams", **kept)


def test_every_key_is_shown_in_the_shipped_file() -> None:
    text = SHIPPED.read_text("utf-8")
    _, _, known = problems(SMALL + "    ???: 1\n")[0].partition("Known: ")
    assert known
    for key in known.split(", "):
        assert f"{key}:" in text


def test_a_full_mode_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "modes.yaml"
    path.write_text(
        """
model_root: weights
lora_root: /loras
default_mode: two
modes:
  one: {model: a.safetensors}
  two:
    title: Zwei ✨
    description: the second
    model: checkpoints/b.safetensors
    vae: b.vae.safetensors
    refiner: {model: r.safetensors, switch_at: 0.7}
    clip_skip: 2
    loras:
      - first.v1.safetensors
      - {path: sub/first.v1.safetensors, strength: -0.5}
      - {path: third.safetensors, adapter_name: mine}
    prediction_type: v_prediction
    default_size: [768, 512]
    default_steps: 30
    default_guidance: 5
    default_sampler: dpm++ 2m karras
    default_negative: blurry
    prompt_prefix: pixel art of
    prompt_suffix: 'soft, warm'
    negative_always: text
    negative_allowed: no
    sizes: [768x512, 512, [512, 768], 512x512]
    samplers: [DDIM, dpm++ 2m karras, ddim]
    min_size: 512
    max_size: 1536
    max_steps: 50
    max_guidance: 9.5
    max_count: 2
    loras_allowed:
      - snow.safetensors
      - {path: sub/n.v2.safetensors, name: night}
    max_loras: 2
    max_lora_strength: 1.5
    allowed_roles: [Artists, 80351110224678912, artists]
    nsfw: true
    metadata: {source: here, tags: [1, 2.5, yes, null]}
""",
        encoding="utf-8",
    )
    file = load_modes(path)
    assert list(file.modes) == ["one", "two"]
    assert file.default_mode == "two"
    two = file.modes["two"]
    assert two == ModeConfig(
        name="two",
        model=ModelSpec(
            tmp_path / "weights/checkpoints/b.safetensors",
            (
                LoraSpec(Path("/loras/first.v1.safetensors"), 1.0, "first_v1"),
                LoraSpec(Path("/loras/sub/first.v1.safetensors"), -0.5, "first_v1_2"),
                LoraSpec(Path("/loras/third.safetensors"), 1.0, "mine"),
            ),
            "v_prediction",
            tmp_path / "weights/b.vae.safetensors",
        ),
        clip_skip=2,
        # What the refiner ends it decodes.
        refiner=ModelSpec(
            tmp_path / "weights/r.safetensors", vae=tmp_path / "weights/b.vae.safetensors"
        ),
        refiner_from=0.7,
        loras_allowed=(
            OfferedLora("snow", Path("/loras/snow.safetensors")),
            OfferedLora("night", Path("/loras/sub/n.v2.safetensors")),
        ),
        max_loras=2,
        max_lora_strength=1.5,
        allowed_roles=("Artists", "80351110224678912", "artists"),
        title="Zwei ✨",
        description="the second",
        default_size=(768, 512),
        default_steps=30,
        default_guidance=5.0,
        default_sampler=Sampler.DPMPP_2M_KARRAS,
        default_negative="blurry",
        prompt_prefix="pixel art of",
        prompt_suffix="soft, warm",
        negative_always="text",
        negative_allowed=False,
        sizes=((768, 512), (512, 512), (512, 768)),
        samplers=(Sampler.DDIM, Sampler.DPMPP_2M_KARRAS),
        min_size=512,
        max_size=1536,
        max_steps=50,
        max_guidance=9.5,
        max_count=2,
        nsfw=True,
        metadata={"source": "here", "tags": [1, 2.5, True, None]},
    )
    assert file.modes["one"].title == "one"
    hash(two)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("512x768", (512, 768)),
        ("512 X 768", (512, 768)),
        ("[512, 768]", (512, 768)),
        ("512", (512, 512)),
        ("'512x512'", (512, 512)),
    ],
)
def test_sizes_are_written_in_three_ways(written: str, size: tuple[int, int]) -> None:
    assert parsed(f"default_size: {written}").modes["a"].default_size == size


def test_lora_root_is_model_root_unless_given() -> None:
    (lora,) = parsed("loras: [l.safetensors]").modes["a"].model.loras
    assert lora.path == Path("/somewhere/m/l.safetensors")


def test_a_model_is_found_in_its_usual_folder_and_named_with_it_too(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    write_checkpoint(tmp_path / "checkpoints" / "x.safetensors", 768)
    (tmp_path / "loras" / "l.safetensors").touch()
    for name in ("x.safetensors", "checkpoints/x.safetensors"):
        text = f"model_root: .\nmodes:\n  a:\n    model: {name}\n    loras: [l.safetensors]\n"
        file = parse_modes(text, tmp_path / "modes.yaml")
        assert file.modes["a"].model.path == tmp_path / "checkpoints" / "x.safetensors"
        assert file.modes["a"].missing() == ()
        assert file.warnings == ()


def test_a_model_that_is_not_there_is_a_warning_with_its_line() -> None:
    file = parsed("loras: [l.safetensors]")
    model, lora = (str(warning) for warning in file.warnings)
    assert model.startswith(f"{PATH}, line 4: modes.a.model: /somewhere/m/x.safetensors")
    assert lora.startswith(f"{PATH}, line 5: modes.a.loras[0].path: ")
    assert [path.name for path in file.modes["a"].missing()] == ["x.safetensors", "l.safetensors"]


def test_what_belongs_to_a_model_is_missed_like_the_model_itself(tmp_path: Path) -> None:
    file = parsed("vae: v.safetensors\nrefiner: r\nloras_allowed: [l.safetensors]")
    told = [str(warning) for warning in file.warnings]
    assert [line.partition(": /somewhere/m/")[0] for line in told] == [
        f"{PATH}, line {line}: modes.a.{key}"
        for line, key in ((4, "model"), (5, "vae"), (6, "refiner"), (7, "loras_allowed[0].path"))
    ]
    # Without what members may add the mode draws.
    missing = [path.name for path in file.modes["a"].missing()]
    assert missing == ["x.safetensors", "v.safetensors", "r"]


def test_a_refiner_that_would_take_over_at_the_end_is_not_loaded_for_nothing() -> None:
    config = parsed("refiner: {model: r, switch_at: 1}").modes["a"]
    request = config.build_request(RequestDraft("x"))
    assert (request.refiner, request.refiner_from) == (None, 1)


@pytest.mark.parametrize(("share", "has_refiner"), [(0, True), (0.55, True), (1, False)])
def test_a_request_may_say_when_the_refiner_takes_over(share: float, has_refiner: bool) -> None:
    config = parsed("refiner: r").modes["a"]
    request = config.build_request(RequestDraft("x", refiner_from=share))
    assert (request.refiner is not None, request.refiner_from) == (has_refiner, share)


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), "half", True])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    config = parsed("refiner: r").modes["a"]
    error = refused(RequestDraft("x", refiner_from=share), config)
    assert (error.field, error.allowed) == ("refiner", "a number from 0 to 1")


def test_a_mode_without_a_refiner_takes_no_word_of_it() -> None:
    error = refused(RequestDraft("x", refiner_from=0.5))
    assert str(error) == "refiner: '0.5' is not allowed. Allowed: none; this mode has no refiner."


def test_what_is_asked_for_again_is_ended_by_the_refiner_as_it_was() -> None:
    config = parsed("refiner: r").modes["a"]
    for share in (0.55, 1.0):
        earlier = config.build_request(RequestDraft("x", refiner_from=share))
        assert draft_of(earlier, config, seed=None).refiner_from == share
    assert draft_of(earlier, mode(), seed=None).refiner_from is None


def test_a_vae_and_a_refiner_are_found_in_their_usual_folders(tmp_path: Path) -> None:
    for folder, name in (("vae", "v"), ("checkpoints", "r"), ("diffusers", "x")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.safetensors").touch()
    text = f"model_root: {tmp_path}\n"
    config = parsed("vae: v.safetensors\nrefiner: r.safetensors", text).modes["a"]
    assert config.missing() == ()
    assert config.model.vae == tmp_path / "vae" / "v.safetensors"
    assert config.refiner == ModelSpec(
        tmp_path / "checkpoints" / "r.safetensors", vae=config.model.vae
    )
    assert config.refiner_from == 0.8
    request = config.build_request(RequestDraft("x"))
    assert (request.refiner, request.refiner_from) == (config.refiner, 0.8)
    assert request.model.vae == config.model.vae


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("clip_skip: 0", "clip_skip: '0' is not allowed. Allowed: a whole number from 1 to 12."),
        ("clip_skip: 13", "from 1 to 12"),
        ("clip_skip: yes", "from 1 to 12"),
        ("vae: [v]", "vae: a list is not allowed"),
        ("refiner: [r]", "refiner: a list is not allowed"),
        ("refiner: {switch_at: 0.5}", "refiner.model: missing. Allowed: a path relative to model_"),
        ("refiner: {model: r, switch_at: 1.1}", "refiner.switch_at: '1.1' is not allowed. Allowed"),
        ("refiner: {model: r, switch_at: .nan}", "refiner.switch_at: '.nan'"),
        ("refiner: {model: r, from: 0.5}", "refiner.from: unknown key"),
        ("loras_allowed: all", "loras_allowed: 'all' is not allowed. Allowed: \"*\" or a list."),
        ("loras_allowed: *", "not YAML"),
        ("loras_allowed: [{name: x}]", "loras_allowed[0].path: missing"),
        ("loras_allowed: [[x]]", "loras_allowed[0]"),
        ("loras_allowed: [x, y/x]", "loras_allowed[1].name: 'x' is taken; give this one another"),
        ("loras_allowed: [{path: x, name: 'a:b'}]", "'a:b' is not allowed. Allowed: 1 to 100"),
        ("loras_allowed: ['<x>']", "loras_allowed[0].name: '<x>' is not allowed"),
        (f"loras_allowed: {[f'l{i}' for i in range(501)]}", "501 are too many. Allowed: 500."),
        ("max_loras: 0", "max_loras: '0' is not allowed. Allowed: a whole number from 1 to 10."),
        ("max_lora_strength: -1", "a number from 0 to 10"),
        ("max_lora_strength: .inf", "a number from 0 to 10"),
        ("allowed_roles: Artists", "allowed_roles: 'Artists' is not allowed. Allowed: a list."),
        ("allowed_roles: [{a: b}]", "allowed_roles[0]: a group of keys is not allowed"),
        (f"allowed_roles: {list(range(51))}", "51 are too many. Allowed: 50."),
    ],
)
def test_how_a_model_is_used_and_by_whom_is_refused_at_its_key(lines: str, said: str) -> None:
    with pytest.raises(ModesFileError) as caught:
        parsed(lines)
    (problem,) = map(str, caught.value.problems)
    assert f"{PATH}, line 5: " in problem
    assert said in problem


def test_relative_roots_count_from_the_file_and_paths_mean_the_same_everywhere() -> None:
    file = parse_modes(SMALL, Path("modes.yaml"))
    assert file.modes["a"].model.path == Path.cwd() / "m" / "x.safetensors"


@pytest.mark.parametrize(
    ("width", "extra", "line", "side"),
    [
        (768, {}, "", 512),
        (1024, {}, "", 512),
        (1024, {}, "prediction_type: v_prediction", 768),
        (1024, {"v_pred": (1,)}, "", 768),
        (1024, {"v_pred": (1,)}, "prediction_type: epsilon", 512),
        (2048, {}, "", 1024),
        (2048, {"v_pred": (1,)}, "", 1024),
        (1280, {}, "", 1024),
    ],
)
def test_a_mode_without_a_size_draws_at_the_one_its_model_was_trained_at(
    tmp_path: Path, width: int, extra: dict[str, tuple[int, ...]], line: str, side: int
) -> None:
    write_checkpoint(tmp_path / "x.safetensors", width, extra=extra)
    config = parsed(line, f"model_root: {tmp_path}\n").modes["a"]
    assert config.default_size == (side, side)
    assert (config.min_size, config.max_size) == (side // 2, side * 2)
    request = config.build_request(RequestDraft("x"))
    assert (request.width, request.height) == (side, side)


def test_a_diffusers_folder_says_its_size_by_its_family_too(tmp_path: Path) -> None:
    write_json(tmp_path / "x.safetensors/unet/config.json", {"cross_attention_dim": 2048})
    assert parsed("", f"model_root: {tmp_path}\n").modes["a"].default_size == (1024, 1024)


def test_every_family_has_a_size() -> None:
    assert set(NATIVE_SIDES) == set(Family)


def test_what_a_mode_says_of_sizes_wins_over_what_its_model_was_trained_at(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.safetensors", 2048)
    head = f"model_root: {tmp_path}\n"
    said = parsed("default_size: 512x768", head).modes["a"]
    assert (said.default_size, said.min_size, said.max_size) == ((512, 768), 512, 2048)
    small = parsed("max_size: 768", head).modes["a"]
    assert (small.default_size, small.min_size) == ((768, 768), 512)
    assert parsed("sizes: [512, 1024]", head).modes["a"].default_size == (1024, 1024)
    assert parsed("sizes: [512, 768]", head).modes["a"].default_size == (512, 512)


def test_a_model_that_can_not_be_read_has_the_usual_size_until_it_can(tmp_path: Path) -> None:
    path, head = tmp_path / "x.safetensors", f"model_root: {tmp_path}\n"
    path.write_bytes(b"not all of it has")
    broken = parsed("", head)
    assert broken.modes["a"].default_size == (512, 512)
    (warning,) = broken.warnings
    assert warning.line == 4
    assert f"{path}: " in warning.text
    assert "512x512 is drawn until it can be told" in warning.text
    assert parsed("default_size: 512", head).warnings == ()  # `bot.py check` tells that
    # Another file at the same place is seen.
    for width, side in ((768, 512), (2048, 1024)):
        write_checkpoint(path, width)
        assert parsed("", head).modes["a"].default_size == (side, side)
        assert parsed("", head).warnings == ()


def test_a_known_model_is_not_read_again(tmp_path: Path) -> None:
    path, head = write_checkpoint(tmp_path / "x.safetensors", 2048), f"model_root: {tmp_path}\n"
    assert parsed("", head).modes["a"].default_size == (1024, 1024)
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert parsed("title: other", head).modes["a"].default_size == (1024, 1024)


def test_a_path_that_the_system_refuses_is_one_that_is_not_there(tmp_path: Path) -> None:
    text = f"model_root: {tmp_path}\nmodes:\n  a: {{model: {'x' * 300}, loras: [{'y' * 300}]}}\n"
    file = parse_modes(text, PATH)
    assert len(file.warnings) == 2
    assert len(file.modes["a"].missing()) == 2


def test_a_single_mode_is_the_default_one() -> None:
    assert parsed().default_mode == "a"


def test_a_mode_beyond_the_usual_bounds_stretches_those_it_does_not_set() -> None:
    config = parsed("default_size: 128x2048\ndefault_steps: 200\ndefault_guidance: 50").modes["a"]
    assert (config.min_size, config.max_size) == (128, 2048)
    assert (config.max_steps, config.max_guidance) == (200, 50)
    assert config.build_request(RequestDraft("x")).steps == 200


def test_bounds_below_the_usual_defaults_pull_them_along() -> None:
    config = parsed("max_size: 256\nmax_steps: 8\nmax_guidance: 2").modes["a"]
    request = config.build_request(RequestDraft("x"))
    assert (request.width, request.height, request.steps) == (256, 256, 8)
    assert request.guidance_scale == 2


def test_an_empty_value_counts_as_left_out() -> None:
    assert parsed("default_steps:\nloras:\nmetadata:\ntitle: ~") == parsed()


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "modes.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert set(load_modes(path).modes) == {"a"}


# What is wrong with a bad one


def test_every_problem_is_told_at_once_with_file_line_key_and_what_is_allowed() -> None:
    assert problems(
        """model_root: m
defult_mode: y
modes:
  x:
    model: a
    model: b
    default_steps: 0.5
    loras: [1, {path: x, strenth: 3}, {strength: 1}]
  y z: {}
"""
    ) == [
        f"{PATH}, line 1: default_mode: missing. Allowed: one of the modes: x, y z.",
        f"{PATH}, line 2: defult_mode: unknown key. Did you mean default_mode?",
        f"{PATH}, line 6: modes.x.model: stands here a second time",
        f"{PATH}, line 7: modes.x.default_steps: '0.5' is not allowed."
        " Allowed: a whole number from 1 to 500.",
        f"{PATH}, line 8: modes.x.loras[1].strenth: unknown key. Did you mean strength?",
        f"{PATH}, line 8: modes.x.loras[2].path: missing. Allowed: a path relative to lora_root.",
        f"{PATH}, line 9: modes.y z: not allowed as a name."
        " Allowed: 1 to 40 letters, digits, dots, hyphens and underscores.",
        f"{PATH}, line 9: modes.y z.model: missing. Allowed: a path relative to model_root.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "default_size: 0",
        "default_size: 500",
        "default_size: 512x500",
        "default_size: [512]",
        "default_size: [512, 512, 512]",
        "default_size: [512, wide]",
        "default_size: {w: 512}",
        "default_size: big",
        "default_size: 8000x8000",
        "default_steps: 0",
        "default_steps: 1001",
        "default_steps: 010",
        "default_steps: 0x10",
        "default_steps: yes",
        "default_steps: '20'",
        "default_steps: [20]",
        "default_steps: 99999999999999999999999999",
        "default_guidance: 0.5",
        "default_guidance: .nan",
        "default_guidance: .inf",
        "default_guidance: 1e400",
        "default_guidance: lots",
        "default_sampler: Oiler",
        "default_sampler: [DDIM]",
        "prediction_type: sample",
        "min_size: 100",
        "max_size: 8",
        "max_count: 11",
        "title: ''",
        "title: [a]",
        'title: "a\\nb"',
        'title: "\\0"',
        "description: " + "x" * 201,
        "prompt_prefix: " + "x" * 501,
        "prompt_suffix: [a]",
        "negative_always: {a: b}",
        "negative_allowed: 1",
        "negative_allowed: 'yes'",
        "nsfw: maybe",
        "exact: 1",
        "compile: [yes]",
        "compile: inductor",
        "nsfw: [true]",
        "sizes: 512x512",
        "sizes: [500x512]",
        "sizes: [[512, 512, 512]]",
        "sizes: [big]",
        "sizes: {a: 512x512}",
        f"sizes: [{', '.join(['512x512'] * 21)}]",
        "samplers: DDIM",
        "samplers: [Oiler]",
        "samplers: [[DDIM]]",
        "loras: one.safetensors",
        "loras: {path: x}",
        "loras: [[x]]",
        "loras: [{path: x, strength: strong}]",
        "loras: [{path: x, strength: 11}]",
        "loras: [{path: x, adapter_name: a.b}]",
        "loras: [{path: x, adapter_name: a}, {path: y, adapter_name: a}]",
        "metadata: [1]",
        "metadata: text",
        "metadata: {a: 1, a: 2}",
        "? [complex]\n: 1",
    ],
)
def test_a_value_that_is_not_allowed_is_refused_at_its_line(line: str) -> None:
    body = "".join(f"    {part}\n" for part in line.splitlines())
    (problem,) = problems(SMALL + body)
    assert problem.startswith(f"{PATH}, line 5: modes.a")


def test_defaults_outside_the_modes_own_bounds_are_refused() -> None:
    (problem,) = problems(SMALL + "    max_steps: 10\n    default_steps: 20\n")
    assert "a whole number from 1 to 10." in problem
    (problem,) = problems(SMALL + "    min_size: 512\n    max_size: 256\n")
    assert "modes.a.max_size: '256'" in problem
    (problem,) = problems(SMALL + "    max_size: 256\n    default_size: 512\n")
    assert "modes.a.default_size: '512'" in problem


def test_defaults_that_the_mode_itself_does_not_allow_are_refused_with_what_is() -> None:
    (problem,) = problems(SMALL + "    sizes: [512, 512x768]\n    default_size: 768x512\n")
    assert problem == (
        f"{PATH}, line 6: modes.a.default_size: '768x512' is not allowed."
        " Allowed: one of sizes: 512x512, 512x768."
    )
    (problem,) = problems(SMALL + "    samplers: [DDIM, LCM]\n    default_sampler: Heun\n")
    assert problem.endswith("default_sampler: 'Heun' is not allowed. Allowed: DDIM, LCM.")
    (problem,) = problems(SMALL + "    max_size: 512\n    sizes: [512, 768]\n")
    assert "line 6: modes.a.sizes[1]: '768'" in problem


def test_a_mode_without_a_default_takes_an_allowed_one() -> None:
    config = parsed("sizes: [640x384, 1280x2048]\nsamplers: [LCM, DDIM]").modes["a"]
    assert (config.default_size, config.default_sampler) == ((640, 384), Sampler.LCM)
    assert (config.min_size, config.max_size) == (256, 2048)
    usual = parsed("sizes: [640x384, 512]\nsamplers: [DDIM, Euler a]").modes["a"]
    assert (usual.default_size, usual.default_sampler) == ((512, 512), Sampler.EULER_A)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("null", "the file is empty"),
        ("[]", "line 1: a list is not allowed. Allowed: keys with values."),
        ("just text", "Allowed: keys with values"),
        ("modes:\n  a: {model: x}\n", "line 1: model_root: missing"),
        ("model_root: m\n", "line 1: modes: missing"),
        ("model_root: m\nmodes: {}\n", "line 2: modes: missing"),
        ("model_root: m\nmodes: [a]\n", "line 2: modes: a list is not allowed"),
        ("model_root: m\nmodes:\n  a:\n", "modes.a.model: missing"),
        ("model_root: m\nmodes:\n  a: x\n", "line 3: modes.a: 'x' is not allowed"),
        ("model_root: [m]\nmodes:\n  a: {model: x}\n", "line 1: model_root: a list"),
        (SMALL + "default_mode: b\n", "default_mode: 'b' is not allowed. Allowed: one of the"),
        ("a: [", "not YAML"),
        ("a: 'x", "not YAML"),
        ("a: b: c", "line 1: not YAML"),
        ("modes:\n\ta: 1\n", "line 2: not YAML"),
        ("modes:\n\ta: 1\n", "indent with spaces, not tabs"),
        ("a: 1\nb: \x01", "line 2: not YAML: a character that YAML does not allow"),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML"),
        ("a: &x 1\nb: *x\n", "line 2: aliases (*x) are not allowed"),
        ("a: *nothing\n", "aliases (*nothing) are not allowed"),
        ("&a [*a]", "aliases (*a) are not allowed"),
        ("a: {<<: *base}", "aliases (*base) are not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "tags (tag:yaml.org,2002:python"),
        ("a: !mine 1", "tags (!mine) are not allowed"),
        ("[" * 50_000, "nested deeper than"),
        ("{a: " * 50_000, "nested deeper than"),
    ],
)
def test_hostile_and_broken_text_says_what_is_wrong(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


def test_a_few_aliases_cannot_stand_for_billions_of_values() -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases" in problems(laughs)[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model_root: m\n\xff\xfe", "line 2: not UTF-8"),
        ("model_root: m".encode("utf-16"), "not UTF-8"),
        (b"# " + b"x" * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_file_of_another_kind_says_what_is_wrong(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "modes.yaml"
    path.write_bytes(content)
    with pytest.raises(ModesFileError, match=said):
        load_modes(path)


def test_no_file_and_a_folder_in_its_place_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModesFileError, match="No such file"):
        load_modes(tmp_path / "none.yaml")
    with pytest.raises(ModesFileError, match="not a file"):
        load_modes(tmp_path)
    with pytest.raises(ModesFileError, match="not a file"):
        load_modes(Path("/dev/zero"))


@given(st.text(max_size=200))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    problems(text)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(
    st.sampled_from(
        [
            "model",
            "loras",
            "title",
            "default_size",
            "metadata",
            "sizes",
            "samplers",
            "nsfw",
            "exact",
            "compile",
            "vae",
            "refiner",
            "clip_skip",
            "loras_allowed",
            "max_lora_strength",
            "allowed_roles",
        ]
    ),
    YAML_VALUES,
)
def test_any_value_in_a_mode_is_either_read_or_refused_at_its_key(key: str, value: object) -> None:
    text = f"model_root: m\nmodes:\n  a:\n    {key}: {json.dumps(value)}\n"
    text += "" if key == "model" else "    model: x\n"
    said: tuple[str, ...] = ()
    try:
        parse_modes(text, PATH)
    except ModesFileError as error:
        said = tuple(str(problem) for problem in error.problems)
    assert all(f"modes.a.{key}" in problem or "not YAML" in problem for problem in said)


# A single model without a file


def test_without_a_file_one_model_is_one_mode_with_a_warning(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.safetensors", 2048)
    file = load_fallback(tmp_path, "x.safetensors")
    assert file.path is None
    only = file.modes[file.default_mode]
    assert only.model == ModelSpec(tmp_path / "x.safetensors")
    assert (only.default_size, only.min_size, only.max_size) == ((1024, 1024), 512, 2048)
    assert "no modes file" in str(file.warnings[0])
    assert len(file.warnings) == 1


def test_the_fallback_says_what_is_not_set_and_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModesFileError, match=r"^MODEL: not set"):
        load_fallback(tmp_path, None)
    with pytest.raises(ModesFileError, match=r"^MODEL_ROOT: not set"):
        load_fallback(None, "x")
    with pytest.raises(ModesFileError, match=r"MODEL_ROOT: .*\nMODEL: "):
        load_fallback(None, "")
    assert "no such file" in str(load_fallback(tmp_path, "x").warnings[1])


# From a draft to a request


def test_a_bare_prompt_gets_the_modes_defaults_and_a_fresh_seed() -> None:
    config = mode(
        default_size=(512, 768),
        default_steps=30,
        default_guidance=6.5,
        default_sampler=Sampler.DDIM,
        default_negative="blurry",
    )
    first, second = (config.build_request(RequestDraft(" a fox ")) for _ in range(2))
    assert (first.mode, first.model) == ("a", config.model)
    assert (first.prompt, first.negative_prompt) == ("a fox", "blurry")
    assert (first.width, first.height, first.steps) == (512, 768, 30)
    assert (first.guidance_scale, first.sampler, first.count) == (6.5, Sampler.DDIM, 1)
    assert 0 <= first.seed <= MAX_SEED
    assert first.seed != second.seed


def test_what_was_asked_for_wins_over_the_defaults() -> None:
    request = mode(default_negative="blurry").build_request(
        RequestDraft(
            "a fox",
            negative_prompt="",
            width=256,
            height=1024,
            steps=1,
            guidance_scale=30,
            sampler="euler A",
            seed=MAX_SEED,
            count=4,
        )
    )
    assert request.negative_prompt == ""
    assert (request.width, request.height, request.steps) == (256, 1024, 1)
    assert (request.guidance_scale, request.sampler) == (30.0, Sampler.EULER_A)
    assert request.seeds == (MAX_SEED, 0, 1, 2)


def test_seed_zero_is_a_seed() -> None:
    assert mode().build_request(RequestDraft("x", seed=0)).seed == 0


def test_tabs_and_line_breaks_in_a_prompt_become_spaces() -> None:
    request = mode().build_request(RequestDraft("a\tred\r\nfox\u2028jumps\n", negative_prompt="\n"))
    assert request.prompt == "a red fox jumps"
    assert request.negative_prompt == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "日本の狐",
        "fox 🦊 👩\u200d🚀",
        "Ünï cödé",
        "(fox:1.3), [a|b]",
        "x" * 2000,
    ],
)
def test_prompts_of_all_languages_are_taken(prompt: str) -> None:
    assert mode().build_request(RequestDraft(prompt)).prompt == prompt


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "\n\t", "\u200b\u2060", "x" * 2001, "a\0b", "a\x1b[31m", "\ud800", 5, None],
    ids=ascii,
)
def test_a_prompt_that_is_not_allowed_is_refused_by_name(prompt: object) -> None:
    error = refused(RequestDraft(prompt))  # type: ignore[arg-type] # hostile on purpose
    assert error.field == "prompt"
    str(error).encode()
    assert "2000 characters" in error.allowed


@pytest.mark.parametrize("negative", ["x" * 2001, "a\0b", "\udfff", 5])
def test_a_negative_prompt_that_is_not_allowed_is_refused_by_name(negative: object) -> None:
    error = refused(RequestDraft("x", negative_prompt=negative))  # type: ignore[arg-type] # likewise
    assert error.field == "negative"


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("width", 250, "width"),
        ("width", 248, "width"),
        ("width", 1032, "width"),
        ("height", 512.0, "height"),
        ("height", "512", "height"),
        ("steps", 0, "steps"),
        ("steps", 101, "steps"),
        ("steps", True, "steps"),
        ("steps", 20.5, "steps"),
        pytest.param("steps", 10**5000, "steps", id="steps-huge"),
        ("guidance_scale", 0.99, "guidance"),
        ("guidance_scale", 30.01, "guidance"),
        ("guidance_scale", float("nan"), "guidance"),
        ("guidance_scale", float("inf"), "guidance"),
        ("guidance_scale", True, "guidance"),
        ("guidance_scale", "7", "guidance"),
        pytest.param("guidance_scale", 10**5000, "guidance", id="guidance-huge"),
        ("seed", -1, "seed"),
        ("seed", 2**32, "seed"),
        ("seed", 1.0, "seed"),
        ("seed", False, "seed"),
        ("count", 0, "count"),
        ("count", 5, "count"),
        ("sampler", "Oiler", "sampler"),
        ("sampler", "", "sampler"),
        ("sampler", 3, "sampler"),
        ("sampler", "\ud800", "sampler"),
    ],
)
def test_a_field_that_is_not_allowed_is_refused_by_name_with_what_is(
    field: str, value: object, name: str
) -> None:
    error = refused(RequestDraft("x", **{field: value}))  # type: ignore[arg-type] # hostile on purpose
    assert error.field == name
    assert error.allowed in str(error)
    str(error).encode()


def test_an_unknown_sampler_lists_those_that_exist() -> None:
    assert refused(RequestDraft("x", sampler="Oiler")).allowed == ", ".join(Sampler)


def test_the_modes_words_are_added_for_the_model_and_not_for_people() -> None:
    config = mode(
        prompt_prefix="pixel art of",
        prompt_suffix="soft, warm",
        default_negative="blurry",
        negative_always="text",
    )
    request = config.build_request(RequestDraft("a fox,"))
    assert request.prompt == "pixel art of a fox, soft, warm"
    assert request.negative_prompt == "blurry, text"
    assert (request.shown_prompt, request.shown_negative) == ("a fox,", "blurry")
    # The picture's file says what it was drawn from.
    assert request_parameters(request, 1).startswith(
        "pixel art of a fox, soft, warm\nNegative prompt: blurry, text\n"
    )
    own = config.build_request(RequestDraft("a fox", negative_prompt="trees"))
    assert (own.negative_prompt, own.shown_negative) == ("trees, text", "trees")
    none = config.build_request(RequestDraft("a fox", negative_prompt=""))
    assert (none.negative_prompt, none.shown_negative) == ("text", "")
    # What people see makes the same once more: nothing is added twice.
    draft = RequestDraft(request.shown_prompt, negative_prompt=request.shown_negative, seed=1)
    assert replace(config.build_request(draft), seed=request.seed) == request


def test_a_mode_that_adds_nothing_stores_the_words_once() -> None:
    request = mode().build_request(RequestDraft("a fox", negative_prompt="trees"))
    assert (request.typed_prompt, request.typed_negative) == (None, None)
    assert (request.shown_prompt, request.shown_negative) == ("a fox", "trees")


def test_a_mode_may_take_no_negative_prompt_but_its_own() -> None:
    config = mode(default_negative="blurry", negative_allowed=False)
    for said in (None, "blurry", " blurry\n"):
        draft = RequestDraft("x", negative_prompt=said)
        assert config.build_request(draft).negative_prompt == "blurry"
    for said in ("trees", ""):
        error = refused(RequestDraft("x", negative_prompt=said), config)
        assert (error.field, error.allowed) == ("negative", "the mode's own alone; leave it out")


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (768, 512),
        (512, None),
        (512.0, 768),
        (True, 768),
        ("512", "768"),
        pytest.param(10**5000, 512, id="huge"),
    ],
)
def test_a_size_that_is_not_in_the_modes_list_is_refused_with_the_list(
    width: object, height: object
) -> None:
    config = mode(sizes=((512, 768), (1280, 64)), default_size=(1280, 64))
    draft = RequestDraft("x", width=width, height=height)  # type: ignore[arg-type] # hostile on purpose
    error = refused(draft, config)
    assert (error.field, error.allowed) == ("size", "512x768, 1280x64")
    str(error).encode()
    request = config.build_request(RequestDraft("x", width=512, height=768))
    assert (request.width, request.height) == (512, 768)
    assert config.build_request(RequestDraft("x")).width == 1280


def test_a_sampler_that_the_mode_does_not_offer_is_refused_with_those_it_does() -> None:
    config = mode(samplers=(Sampler.DDIM, Sampler.LCM), default_sampler=Sampler.LCM)
    assert config.build_request(RequestDraft("x", sampler="ddim")).sampler is Sampler.DDIM
    assert config.build_request(RequestDraft("x")).sampler is Sampler.LCM
    assert refused(RequestDraft("x", sampler="Heun"), config).allowed == "DDIM, LCM"


@given(
    prompt=st.text(max_size=2100),
    width=st.none() | st.integers() | st.booleans(),
    steps=st.none() | st.integers(-5, 200),
    guidance=st.none() | st.floats(),
    seed=st.none() | st.integers(),
    count=st.none() | st.integers(-1, 12),
    sampler=st.none() | st.sampled_from(Sampler) | st.text(max_size=5),
)
def test_any_draft_becomes_an_allowed_request_or_a_refusal(**fields: object) -> None:
    guidance = fields.pop("guidance")
    draft = RequestDraft(**fields, guidance_scale=guidance)  # type: ignore[arg-type] # anything goes
    config = mode()
    try:
        request = config.build_request(draft)
    except RequestError as error:
        assert str(error).encode()  # noqa: PT017 - both ends are fine
        return
    assert request.prompt
    assert request.prompt.isprintable() or "\n" not in request.prompt
    assert 256 <= request.width <= 1024
    assert request.width % 8 == 0
    assert 1 <= request.steps <= 100
    assert 1 <= request.guidance_scale <= 30
    assert 0 <= request.seed <= MAX_SEED
    assert 1 <= request.count <= 4


# LoRAs that are asked for


@pytest.fixture
def snowy(tmp_path: Path) -> ModeConfig:
    """A mode with a LoRA of its own that offers two more."""
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("own", "snow", "night")}
    for path in paths.values():
        path.touch()
    return ModeConfig(
        "a",
        ModelSpec(Path("x"), (LoraSpec(paths["own"], 0.5, "own"),)),
        loras_allowed=tuple(OfferedLora(name, paths[name]) for name in ("snow", "night")),
        prompt_suffix="warm",
    )


def test_tags_and_choices_are_laid_over_the_model_and_leave_the_words(snowy: ModeConfig) -> None:
    request = snowy.build_request(
        RequestDraft("a fox, <lora:snow:0.8>, red", loras=(LoraChoice("night", -0.5),))
    )
    assert request.prompt == "a fox, red, warm"
    assert [(lora.adapter_name, lora.strength) for lora in request.model.loras] == [
        ("own", 0.5),
        ("snow", 0.8),
        ("night", -0.5),
    ]
    assert request.model == replace(snowy.model, loras=request.model.loras)
    assert request.shown_prompt == "a fox, <lora:snow:0.8>, red <lora:night:-0.5>"
    # What people see makes the same once more: each is laid once.
    again = snowy.build_request(RequestDraft(request.shown_prompt, seed=request.seed))
    assert again == request


def test_a_choice_wins_over_a_tag(snowy: ModeConfig) -> None:
    draft = RequestDraft("x <lora:snow:0.2>", loras=(LoraChoice("snow", 0.7),))
    request = snowy.build_request(draft)
    assert [lora.strength for lora in request.model.loras] == [0.5, 0.7]
    again = snowy.build_request(RequestDraft(request.shown_prompt, seed=request.seed))
    assert again == request


def test_without_a_wish_the_model_is_the_modes_own(snowy: ModeConfig) -> None:
    assert snowy.build_request(RequestDraft("x")).model == snowy.model


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (RequestDraft("x <lora:own>"), "lora"),
        (RequestDraft("x <lora:../snow>"), "lora"),
        (RequestDraft("x <lora:/etc/passwd:1>"), "lora"),
        (RequestDraft("x <lora:snow:nan>"), "lora"),
        (RequestDraft("x <lora:snow:3>"), "lora"),
        (RequestDraft("<lora:snow>"), "prompt"),
        (RequestDraft("x" + "<lora:snow>" * 10_000), "prompt"),
        (RequestDraft("x", loras=(LoraChoice("snow", float("nan")),)), "lora"),
        (RequestDraft("x", loras=(LoraChoice("snow"), LoraChoice("nope")) * 10_000), "lora"),
        (RequestDraft("x" * 1995, loras=(LoraChoice("snow"),)), "prompt"),
    ],
    ids=range(10),
)
def test_a_lora_that_is_not_offered_so_is_refused(
    snowy: ModeConfig, draft: RequestDraft, field: str
) -> None:
    assert refused(draft, snowy).field == field


def test_a_mode_that_offers_none_says_so() -> None:
    assert refused(RequestDraft("x <lora:snow>")).allowed == "none in this mode"


def test_what_is_offered_is_there(snowy: ModeConfig, tmp_path: Path) -> None:
    assert list(snowy.offered_loras()) == ["snow", "night"]
    (tmp_path / "snow.safetensors").unlink()
    assert list(snowy.offered_loras()) == ["night"]
    assert refused(RequestDraft("x <lora:snow>"), snowy).allowed == "night"


def test_a_star_offers_whatever_lies_in_the_folder_by_then(tmp_path: Path) -> None:
    config = parsed('loras_allowed: "*"', f"model_root: {tmp_path}\n").modes["a"]
    assert config.offered_loras() == {}
    (tmp_path / "loras" / "deep").mkdir(parents=True)
    paths = [tmp_path / "loras" / name for name in ("b.v2.safetensors", "deep/A.safetensors")]
    # Not weights, not to be named in a tag, a second one of the name, and outside.
    others = ["c.ckpt", "d:e.safetensors", "deep/b.v2.safetensors", "../f.safetensors"]
    for path in (*paths, *(tmp_path / "loras" / name for name in others)):
        path.touch()
    assert config.offered_loras() == {"b.v2": paths[0], "A": paths[1]}
    request = config.build_request(RequestDraft("x <lora:b.v2><lora:a>"))
    assert [lora.path for lora in request.model.loras] == paths


def test_a_star_takes_a_lora_root_without_that_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "l.safetensors").touch()
    head = f"model_root: {tmp_path}\nlora_root: {tmp_path / 'mine'}\n"
    assert list(parsed('loras_allowed: "*"', head).modes["a"].offered_loras()) == ["l"]
    (tmp_path / "mine" / "loras").mkdir()
    assert parsed('loras_allowed: "*"', head).modes["a"].offered_loras() == {}


# Text

TITLES = [
    "\N{MAN}\N{ZERO WIDTH JOINER}\N{ARTIST PALETTE} Art",
    "\N{RAINBOW} \N{WAVING BLACK FLAG}\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\N{WAVING WHITE FLAG}\N{VARIATION SELECTOR-16}\N{ZERO WIDTH JOINER}\N{RAINBOW}",
    "\u0645\u06cc\N{ZERO WIDTH NON-JOINER}\u062e\u0648\u0627\u0647\u0645",  # Persian
]


@pytest.mark.parametrize("title", TITLES)
def test_emoji_and_scripts_that_need_invisible_joiners_may_stand_in_a_title(title: str) -> None:
    assert parsed(f"title: {title}").modes["a"].title == title


@pytest.mark.parametrize(
    "character",
    ["\u202e", "\u202a", "\u2066", "\u2069", "\u200f", "\u061c", "\u2028", "\x7f", "\ue000"],
    ids=ascii,
)
def test_what_turns_text_around_breaks_lines_or_is_nothing_known_may_not(character: str) -> None:
    (problem,) = problems(f'{SMALL}    title: "a\\u{ord(character):04x}b"\n')

    assert "modes.a.title: 'a\N{REPLACEMENT CHARACTER}b' is not allowed" in problem


@pytest.mark.parametrize("text", ["\\u200b", "\\u200d \\u200d", "\\u2060"])
def test_text_that_nobody_can_see_is_none(text: str) -> None:
    (problem,) = problems(f'{SMALL}    title: "{text}"\n')

    assert "Allowed: 1 to " in problem


# From a picture

SOURCE = Path("sources/x.png")


def test_a_picture_is_drawn_anew_by_three_quarters_unless_told() -> None:
    request = mode(default_steps=20).build_request(RequestDraft("x", image=b"x"), SOURCE)
    assert (request.source, request.strength, request.steps_taken) == (SOURCE, 0.75, 15)
    whole = mode().build_request(RequestDraft("x", strength=1), SOURCE)
    assert whole.strength == 1.0


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan"), True, "1", 0.04])
def test_a_strength_that_is_not_allowed_is_refused(strength: object) -> None:
    draft = RequestDraft("x", image=b"x", strength=strength)  # type: ignore[arg-type] # hostile on purpose
    with pytest.raises(RequestError) as caught:
        mode(default_steps=20).build_request(draft, SOURCE)
    assert caught.value.field == "strength"


@given(st.integers(1, 500))
def test_the_least_strength_that_a_refusal_names_is_allowed(steps: int) -> None:
    config = mode(max_steps=500)
    with pytest.raises(RequestError) as caught:
        config.build_request(RequestDraft("x", steps=steps, strength=1e-9), SOURCE)
    least = float(caught.value.allowed.split()[3])
    request = config.build_request(RequestDraft("x", steps=steps, strength=least), SOURCE)
    assert request.steps_taken >= 1


def test_a_strength_without_a_picture_is_refused() -> None:
    assert refused(RequestDraft("x", strength=0.5)).field == "strength"


def test_a_picture_that_nobody_has_stored_is_not_passed_over() -> None:
    assert refused(RequestDraft("x", image=b"x")).field == "image"


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((4000, 4000), (512, 512)),
        ((3000, 2000), (640, 448)),
        ((2000, 3000), (448, 640)),
        ((1920, 1080), (704, 384)),
        ((10_000, 100), (1024, 256)),
        ((1, 2048), (256, 1024)),
    ],
)
def test_a_pictures_aspect_is_drawn_in_the_modes_area(
    picture: tuple[int, int], size: tuple[int, int]
) -> None:
    assert mode().size_like(*picture) == size


def test_of_fixed_sizes_the_one_in_the_pictures_aspect_is_taken() -> None:
    sizes = ((512, 512), (512, 768), (768, 512), (1024, 1536))
    config = mode(sizes=sizes)
    assert config.size_like(100, 90) == (512, 512)
    assert config.size_like(2000, 3000) == (512, 768)
    assert config.size_like(9000, 100) == (768, 512)
    assert mode(sizes=sizes, default_size=(1024, 1536)).size_like(1, 9) == (1024, 1536)


@given(
    picture=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    default=st.tuples(st.integers(8, 256), st.integers(8, 256)),
    low=st.integers(8, 128),
    more=st.integers(0, 400),
)
def test_any_pictures_size_is_one_that_may_be_asked_for(
    picture: tuple[int, int], default: tuple[int, int], low: int, more: int
) -> None:
    config = mode(
        default_size=(default[0] * 8, default[1] * 8), min_size=low * 8, max_size=(low + more) * 8
    )
    width, height = config.size_like(*picture)
    request = config.build_request(RequestDraft("x", width=width, height=height))
    assert (request.width, request.height) == (width, height)


def test_modes_say_how_their_passes_are_made_and_not_both_ways_at_once() -> None:
    text = "model_root: m\nmodes:\n  a:\n    model: x\n    default_size: 512\n"
    plain, exact, compiled = (
        parse_modes(text + more, PATH).modes["a"]
        for more in ("", "    exact: true\n", "    compile: true\n    exact: false\n")
    )
    draft = RequestDraft("a hill")

    assert [(mode.exact, mode.compile) for mode in (plain, exact, compiled)] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert exact.build_request(draft).exact
    assert compiled.build_request(draft).compiled
    both = "    compile: true\n    exact: true\n"
    assert problems(text + both) == [
        f"{PATH}, line 6: modes.a.compile: not together with exact: true. Choose one."
    ]


def test_the_pages_form_has_every_key_but_the_groups() -> None:
    form = Path(__file__).parent.parent / "bot" / "web" / "static" / "mode_form.js"
    fields = set(re.findall(r'^  \["(\w+)", "', form.read_text(encoding="utf-8"), re.MULTILINE))

    assert fields == set(MODE_KEYS) - {"upscale", "metadata"}
