"""Measures how well a model draws what is asked, prompt by prompt, without a human eye.

    python benchmarks/demo_adherence.py --json adherence.json

draws fixed prompts through the stock StableDiffusionPipeline and lets the checker of
`training/demo/adherence.py` say what is right. Every figure stands beside two others: the same
marks on true drawings (the checker's ceiling; needs the extra 'training') and the same pictures
marked against other prompts (the control: what chance gives).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

# ruff: noqa: TID253, S311 - run by itself, no front end imports it; random pictures, no secrets
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.demo import exam
from training.demo.adherence import foreground_colours, judge, silhouette
from training.demo.scenes import THINGS, Mixture, Scene, sample_scene

try:
    from training.demo.drawing import draw
except ImportError:  # without skia there is no ceiling, and things cannot be told apart
    draw = None  # type: ignore[assignment]  # asked for before each use

Picture = NDArray[np.uint8]
Marks = dict[str, bool]
Marker = Callable[[Scene, Picture], Marks]

MODEL = Path(__file__).resolve().parent.parent / "models" / "diffusers" / "dream-demo"
BATCH = 12
TRUE_THINGS, TRUE_LANDSCAPES = 80, 600  # drawings to compare with, of each thing and in all
COLUMNS = (
    *("background", "colour", "shape", "place", "size", "count", "relation"),
    *("thing", "time", "terrain", "all"),
)
GRID_WIDTH = 12
SAMPLES = (
    "a red circle on a white background",
    "a yellow star on a blue background",
    "a purple heart on a pink background",
    "a large green triangle",
    "a small orange square on a black background",
    "a white ring on a red background",
    "a black cross, top left",
    "a blue diamond in the bottom right on a yellow background",
    "two red hearts",
    "three green squares on a white background",
    "four yellow circles on a purple background",
    "a blue circle left of a yellow square",
)
SAMPLE_SEEDS = 6


@dataclass(frozen=True)
class Group:
    """Prompts of one sort, and how their pictures are marked."""

    name: str
    questions: list[exam.Question]
    marker: Marker


def main() -> None:
    """Draws, marks, prints, and writes what was asked for."""
    options = read_options()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    groups = make_groups(options.share, options.exam_seed)
    report: dict[str, Any] = {"groups": {}, "machine": describe_machine(options)}
    shown: list[Picture] = []
    print(f"{report['machine']}\n")
    print_row("", COLUMNS)
    for group in groups:
        pictures: list[list[Picture]] = []
        for seed in options.seeds:
            pictures.append(draw_all(pipeline, group.questions, seed, options))
            shown += pictures[-1]
        report["groups"][group.name] = print_group(group, pictures)
    report["seconds_per_picture"] = seconds_per_picture(pipeline, options)
    print(f"\n{report['seconds_per_picture']:.2f} s a picture, drawn one by one")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if options.grid:
        contact_sheet(shown).save(options.grid)
    if options.samples:
        sample_sheet(pipeline, options).save(options.samples)


def load(folder: Path) -> StableDiffusionPipeline:
    """Loads a model as anyone would."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_groups(share: float, seed: int) -> list[Group]:
    """Chooses the prompts.

    Args:
        share: Of the full exam, 0 to 1.
        seed: Of the choice.

    Returns:
        The groups.
    """

    def some(count: int) -> int:
        return max(8, round(count * share))

    groups = [
        Group("one shape, pairs trained on", exam.single_shapes(some(96), seed), judge),
        Group(
            "one shape, held-out pairs", exam.single_shapes(some(48), seed, held_out=True), judge
        ),
        Group("two shapes", exam.two_shapes(some(48), seed), judge),
        Group("two to four of a shape", exam.several_shapes(some(36), seed), judge),
    ]
    if draw is not None:
        groups += [
            Group("things", exam.things(some(40), seed), thing_marker()),
            Group("landscapes", exam.landscapes(some(36), seed), landscape_marker()),
        ]
    return groups


def draw_all(
    pipeline: StableDiffusionPipeline,
    questions: list[exam.Question],
    seed: int,
    options: argparse.Namespace,
) -> list[Picture]:
    """Draws every question once; picture n has the seed 1000 * seed + n."""
    pictures: list[Picture] = []
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        generators = [
            torch.Generator().manual_seed(1000 * seed + start + n) for n in range(len(batch))
        ]
        drawn = pipeline(
            [question.prompt for question in batch],
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=generators,
            output_type="np",
        ).images
        pictures += list((drawn * 255).round().astype(np.uint8))
    return pictures


def print_group(group: Group, pictures: list[list[Picture]]) -> dict[str, Any]:
    """Marks a group's pictures, prints the rows, and returns the counts."""
    scenes = [question.scene for question in group.questions]
    # Some way on is another prompt of the same sort: what would be right by accident? (The held-out
    # pairs come round every eight.)
    shift = len(scenes) // 2 + 3
    others = scenes[shift:] + scenes[:shift]
    marks, control = [], []
    for series in pictures:
        marks += [group.marker(*pair) for pair in zip(scenes, series, strict=True)]
        control += [group.marker(*pair) for pair in zip(others, series, strict=True)]
    rows = {"model": tally(marks), "control": tally(control)}
    if draw is not None:
        rng = Random("ceiling")
        rows["ceiling"] = tally([group.marker(scene, draw(scene, rng)) for scene in scenes])
    for name, counts in rows.items():
        cells = [f"{counts[c][0]}/{counts[c][1]}" if c in counts else "" for c in COLUMNS]
        print_row(group.name if name == "model" else f"  {name}", cells)
    return rows


def print_row(name: str, cells: tuple[str, ...] | list[str]) -> None:
    """Prints one row of the table."""
    print(f"{name:28}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


def tally(marks: list[Marks]) -> dict[str, tuple[int, int]]:
    """Counts, of every mark, how many are right and how many there are."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for one in marks:
        for name, right in one.items():
            counts[name].append(right)
    return {name: (sum(rights), len(rights)) for name, rights in counts.items()}


def thing_marker() -> Marker:
    """Makes a marker that names a thing by the true drawing with the most similar silhouette."""
    rng = Random("things to compare with")
    outlines, names = [], []
    counts = dict.fromkeys(THINGS, 0)
    while min(counts.values()) < TRUE_THINGS:
        scene = sample_scene(rng, Mixture(one=0, thing=1))
        kind = scene.subject.kind if scene.subject else ""
        outline = silhouette(draw(scene, rng))
        if outline is not None and counts[kind] < TRUE_THINGS:
            outlines.append(outline)
            names.append(kind)
            counts[kind] += 1
    bank = np.stack(outlines)

    def mark(scene: Scene, picture: Picture) -> Marks:
        if scene.subject is None:
            raise ValueError("a scene of a thing is wanted")
        outline = silhouette(picture)
        nearest = (
            None if outline is None else names[int(((bank - outline) ** 2).sum((1, 2)).argmin())]
        )
        colours = foreground_colours(picture)
        right = {
            "thing": nearest == scene.subject.kind,
            "colour": scene.subject.shown_colour in colours[:2],
        }
        return right | {"all": all(right.values())}

    return mark


def landscape_marker() -> Marker:
    """Makes a marker that names time and terrain by the most similar of true landscapes."""
    rng = Random("landscapes to compare with")
    scenes = [sample_scene(rng, Mixture(one=0, landscape=1)) for _ in range(TRUE_LANDSCAPES)]
    bank = np.stack([_thumbnail(draw(scene, rng)) for scene in scenes])

    def mark(scene: Scene, picture: Picture) -> Marks:
        nearest = scenes[int(((bank - _thumbnail(picture)) ** 2).sum((1, 2, 3)).argmin())]
        seen, wanted = nearest.landscape, scene.landscape
        if seen is None or wanted is None:
            raise ValueError("a landscape is wanted")
        right = {"time": seen.time == wanted.time, "terrain": seen.terrain == wanted.terrain}
        return right | {"all": all(right.values())}

    return mark


def _thumbnail(picture: Picture) -> NDArray[np.float64]:
    small = Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def seconds_per_picture(pipeline: StableDiffusionPipeline, options: argparse.Namespace) -> float:
    """Times single pictures, the first one left out; the median of seven."""
    times = []
    for seed in range(8):
        started = time.perf_counter()
        pipeline(
            "a red circle on a white background",
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=torch.Generator().manual_seed(seed),
        )
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[3]


def contact_sheet(pictures: list[Picture]) -> Image.Image:
    """Lays all pictures out in rows, in the order in which they were drawn."""
    side = len(pictures[0]) + 4
    rows = -(-len(pictures) // GRID_WIDTH)
    sheet = Image.new("RGB", (GRID_WIDTH * side, rows * side), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, GRID_WIDTH)
        sheet.paste(Image.fromarray(picture), (column * side + 2, row * side + 2))
    return sheet


def sample_sheet(pipeline: StableDiffusionPipeline, options: argparse.Namespace) -> Image.Image:
    """Draws `SAMPLES` with the seeds from 0 on, one row a prompt, none left out."""
    side, margin = 132, 330
    sheet = Image.new("RGB", (margin + SAMPLE_SEEDS * side, len(SAMPLES) * side), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for row, prompt in enumerate(SAMPLES):
        pen.text((8, row * side + side // 2 - 8), prompt, fill="black", font=font)
        drawn = pipeline(
            [prompt] * SAMPLE_SEEDS,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in range(SAMPLE_SEEDS)],
        ).images
        for column, picture in enumerate(drawn):
            sheet.paste(picture, (margin + column * side + 2, row * side + 2))
    return sheet


def describe_machine(options: argparse.Namespace) -> str:
    """Says on what and how the figures were measured."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers")
    )
    return (
        f"{options.model.name}, {options.steps} steps, guidance {options.guidance}, "
        f"seeds {options.seeds}, exam {options.exam_seed}; {processor()}, {options.threads} "
        f"threads; Python {platform.python_version()}, {packages}"
    )


def processor() -> str:
    """Names the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description="Measures how well a model draws what is asked, beside a control with other "
        "prompts and the checker's own ceiling.",
    )
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="folder (default: the demo model)"
    )
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default: 20)")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance scale (default: 3)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2], help="draw every prompt so often"
    )
    parser.add_argument(
        "--exam-seed", type=int, default=2026, help="another number asks other prompts"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the prompts, for a quicker look (0 to 1)"
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default: 2)")
    parser.add_argument("--grid", type=Path, help="write all pictures here, as one PNG")
    parser.add_argument("--samples", type=Path, help="write fixed samples here, as one PNG")
    parser.add_argument("--json", type=Path, help="write the counts here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
