"""What travels over HTTP about modes, models and devices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, WithJsonSchema

from bot.web.schemas import Sent
from engine.jobs import Family
from engine.lane import LaneState, LaneStatus
from modes.inventory import FoundFile
from modes.mode_config import STRENGTH, ModeConfig
from modes.request_fields import SIDE_STEP

Size = Annotated[
    tuple[int, int],
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
]
"""Width and height in pixels."""


class SwitchIn(Sent):
    """Which mode to draw with from now on."""

    mode: str = Field(description="Name of a mode.", examples=["demo"])


class ModeOut(BaseModel):
    """A mode: what it draws with unless told otherwise, and how far one may go."""

    name: str
    title: str
    description: str
    default_size: Size
    default_steps: int
    default_guidance: float
    default_sampler: str
    default_negative: str
    prompt_prefix: str = Field(description="Stands before every prompt.")
    prompt_suffix: str = Field(description="Stands behind every prompt, after a comma.")
    negative_always: str = Field(description="Kept away from in every picture.")
    negative_allowed: bool = Field(description="Whether a request may bring a negative prompt.")
    sizes: list[Size] = Field(description="The only ones; empty: any within bounds.")
    samplers: list[str] = Field(description="Those that may be asked for.")
    min_size: int
    max_size: int
    size_step: int
    max_steps: int
    max_guidance: float
    max_count: int
    loras: list[str] = Field(description="Those that may be asked for, by name.")
    max_loras: int = Field(description="How many of them in one request.")
    max_lora_strength: float = Field(description="Of each; below zero likewise.")
    refiner_from: float | None = Field(
        description="The share of the steps after which its refiner takes over; null for none."
    )
    default_strength: float = Field(description="How much of a picture is drawn anew.")
    roles: list[str] = Field(description="Whom on Discord it is for; empty: everybody.")
    nsfw: bool = Field(description="Whether its pictures may be unfit for some eyes.")
    examples: list[str] = Field(description="Prompts to begin with, from the mode's metadata.")
    sample: str | None = Field(
        None, description="Address of a small picture that it drew; null where you may see none."
    )

    @classmethod
    def of(cls, mode: ModeConfig, sample: str | None = None) -> Self:
        """Returns a mode without its model's place on this machine; looks for LoRAs on the disk."""
        examples = mode.metadata.get("examples", ())
        if not isinstance(examples, list | tuple):
            examples = ()
        return cls(
            name=mode.name,
            title=mode.title,
            description=mode.description,
            default_size=mode.default_size,
            default_steps=mode.default_steps,
            default_guidance=mode.default_guidance,
            default_sampler=mode.default_sampler.value,
            default_negative=mode.default_negative,
            prompt_prefix=mode.prompt_prefix,
            prompt_suffix=mode.prompt_suffix,
            negative_always=mode.negative_always,
            negative_allowed=mode.negative_allowed,
            sizes=list(mode.sizes),
            samplers=[sampler.value for sampler in mode.samplers],
            min_size=mode.min_size,
            max_size=mode.max_size,
            size_step=SIDE_STEP,
            max_steps=mode.max_steps,
            max_guidance=mode.max_guidance,
            max_count=mode.max_count,
            loras=list(mode.offered_loras()),
            max_loras=mode.max_loras,
            max_lora_strength=mode.max_lora_strength,
            refiner_from=mode.refiner_from if mode.refiner else None,
            default_strength=STRENGTH,
            roles=list(mode.allowed_roles),
            nsfw=mode.nsfw,
            examples=[example for example in examples if isinstance(example, str)],
            sample=sample,
        )


class ModesOut(BaseModel):
    """The modes and which of them draws when nobody names one."""

    current: str
    default: str = Field(description="Draws until another is switched to; it can't be removed.")
    modes: list[ModeOut]
    samplers: list[str]
    max_image_bytes: int = Field(description="Of a picture to start from.")
    problems: list[str] = Field(
        description="Why the file as it is now is not in force; then its last good state is."
    )


class LoadIn(Sent):
    """Whose model to load, or to give the memory of back."""

    mode: str = Field(description="Name of a mode.", examples=["demo"])


class LoadOut(BaseModel):
    """What loading a model took."""

    mode: str
    family: str
    seconds: float = Field(description="0 where it was loaded already.")
    bytes: int = Field(description="Memory that its weights hold.")


class ModelOut(BaseModel):
    """A model in a device's memory."""

    name: str = Field(description="File or folder, and what tells it from others of the name.")
    path: str = Field(description="Below model_root, or its last part where it lies elsewhere.")
    vram_gb: float
    loras: list[str] = Field(description="Names of the files that are laid over it.")
    modes: list[str] = Field(description="The modes that draw with it.")


class DeviceOut(BaseModel):
    """A device and its memory; a GB has 2**30 bytes."""

    device: str
    state: LaneState
    total_gb: float | None = Field(description="null where its worker does not answer just now.")
    used_gb: float | None
    available_gb: float | None
    usage_percent: float | None
    models_loaded: int | None
    models: list[ModelOut]

    @classmethod
    def of(
        cls,
        lane: LaneStatus,
        stats: Mapping[str, Any] | None,
        modes: Mapping[str, ModeConfig],
        model_root: Path,
    ) -> Self:
        """Returns a device without its models' place on this machine.

        Args:
            lane: what it is doing.
            stats: `ModelRegistry.get_vram_stats`; None where its worker does not answer.
            modes: all modes by name.
            model_root: what paths are relative to.
        """
        known = {} if stats is None else stats
        return cls(
            device=lane.device,
            state=lane.state,
            total_gb=known.get("total_gb"),
            used_gb=known.get("used_gb"),
            available_gb=known.get("available_gb"),
            usage_percent=known.get("usage_percent"),
            models_loaded=known.get("models_loaded"),
            models=[
                ModelOut(
                    name=model["name"],
                    path=_below(Path(model["model_path"]), model_root),
                    vram_gb=model["vram_gb"],
                    loras=[Path(lora).name for lora in model["loras"]],
                    modes=[mode.name for mode in modes.values() if mode.model.key == model["name"]],
                )
                for model in known.get("models", ())
            ],
        )


class VramOut(BaseModel):
    """The devices' memory."""

    devices: list[DeviceOut]


class ModelsStatusOut(BaseModel):
    """What is loaded, and what waits to be drawn."""

    current_mode: str
    is_loaded: bool = Field(description="Whether the current mode's model is in memory.")
    queue_size: int = Field(description="Jobs that wait; what runs is not counted.")
    running: int = Field(description="Jobs that run.")
    devices: list[DeviceOut]


class FoundOut(BaseModel):
    """A file or diffusers folder in a root."""

    path: str = Field(description="As a mode names it: relative to its root.")
    name: str = Field(description="The file's name without folder and ending.")
    family: Family | None = Field(description="Kind of model; null where it can't be used.")
    bytes: int
    problem: str | None = Field(description="Why it can't be used.")
    modes: list[str] = Field(description="The modes that name it.")

    @classmethod
    def of(cls, found: FoundFile, modes: Sequence[str]) -> Self:
        """Returns a file and who names it."""
        return cls(
            path=found.path,
            name=found.name,
            family=found.family,
            bytes=found.bytes,
            problem=found.problem,
            modes=list(modes),
        )


class InventoryOut(BaseModel):
    """What lies in a root."""

    root: str = Field(description="The folder that the paths are relative to.")
    files: list[FoundOut]


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
