import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - the subject is made of it
from transformers import CLIPTokenizer  # noqa: TID253 - the subject is made of it

from engine.families import VOCABULARY, config_folder
from engine.jobs import Family
from engine.model_detector import FAMILIES, PIPELINES
from engine.samplers import NoiseSchedule
from engine.workers.single_file import LAYOUTS, SingleFile
from tests.ldm_layout import part_state
from training.clip.vocabulary import MERGES, vocabulary

# Parameters and tensors of the published models.
UNETS = {
    Family.SD15: (859_520_964, 686),
    Family.SD2: (865_910_724, 686),
    Family.SDXL: (2_567_463_684, 1680),
    Family.SDXL_REFINER: (2_259_526_660, 1220),
}
CLIP_L, CLIP_H, CLIP_BIG_G = (123_060_480, 196), (340_387_840, 372), (694_659_840, 517)
TEXT_ENCODERS = {
    (Family.SD15, "text_encoder"): CLIP_L,
    (Family.SD2, "text_encoder"): CLIP_H,
    (Family.SDXL, "text_encoder"): CLIP_L,
    (Family.SDXL, "text_encoder_2"): CLIP_BIG_G,
    (Family.SDXL_REFINER, "text_encoder_2"): CLIP_BIG_G,
}
PUBLISHED = {
    **{(family, "unet"): numbers for family, numbers in UNETS.items()},
    **{(family, "vae"): (83_653_863, 248) for family in Family},
    **TEXT_ENCODERS,
}
# Names and shapes out of the published single files; in parts where the families differ.
LANDMARKS = {
    Family.SD15: {
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight": (
            320,
            768,
        ),
        "first_stage_model.encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
    },
    Family.SD2: {
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight": (1280, 1024),
        "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight": (3072, 1024),
        "cond_stage_model.model.positional_embedding": (77, 1024),
    },
    Family.SDXL: {
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (
            1280,
            2048,
        ),
        "model.diffusion_model.output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
        "conditioner.embedders.1.model.text_projection": (1280, 1280),
        "conditioner.embedders.1.model.transformer.resblocks.31.mlp.c_proj.weight": (1280, 5120),
    },
    Family.SDXL_REFINER: {
        "model.diffusion_model.label_emb.0.0.weight": (1536, 2560),
        "model.diffusion_model.input_blocks.7.1.transformer_blocks.3.attn2.to_k.weight": (
            1536,
            1280,
        ),
        "model.diffusion_model.middle_block.1.transformer_blocks.3.attn1.to_q.weight": (1536, 1536),
        "conditioner.embedders.0.model.token_embedding.weight": (49408, 1280),
    },
}


def config(family: Family, part: str, name: str = "config.json") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((config_folder(family) / part / name).read_text())
    return values


@pytest.mark.parametrize(("family", "part"), PUBLISHED)
def test_a_part_has_the_published_size(family: Family, part: str) -> None:
    module = LAYOUTS[family][part].empty(config(family, part))

    weights = module.state_dict()

    assert (sum(tensor.numel() for tensor in weights.values()), len(weights)) == PUBLISHED[
        family, part
    ]
    assert all(tensor.is_meta for tensor in weights.values())


def test_every_part_that_loads_has_a_published_size() -> None:
    assert {(family, part) for family in Family for part in LAYOUTS[family]} == set(PUBLISHED)


@pytest.mark.parametrize("family", Family)
def test_a_full_size_file_fills_every_weight(family: Family) -> None:
    file = {}
    for part, layout in LAYOUTS[family].items():
        file |= part_state(family, part, layout.empty(config(family, part)))
    assert {name: tuple(file[name].shape) for name in LANDMARKS[family]} == LANDMARKS[family]

    for part, layout in LAYOUTS[family].items():
        tensors = {n: tensor for n, tensor in file.items() if n.startswith(layout.prefix)}
        module = layout.empty(config(family, part))
        # A weight that was passed over would still have the type that it was built with.
        filled = layout.fill(module, tensors, torch.float16, torch.device("meta"))
        assert {tensor.dtype for tensor in filled.state_dict().values()} == {torch.float16}


def test_sdxl_in_one_file_has_the_published_number_of_tensors() -> None:
    parts = LAYOUTS[Family.SDXL]
    states = (
        part_state(Family.SDXL, part, layout.empty(config(Family.SDXL, part)))
        for part, layout in parts.items()
    )

    assert sum(map(len, states)) == 2515


@pytest.mark.parametrize("family", Family)
def test_the_configuration_tells_its_own_family(family: Family) -> None:
    unet = config(family, "unet")
    encoders = [config(family, part) for part in LAYOUTS[family] if part.startswith("text")]
    pipeline = config(family, "", "model_index.json")

    assert FAMILIES[unet["cross_attention_dim"]] is family
    assert sum(encoder["hidden_size"] for encoder in encoders) == unet["cross_attention_dim"]
    assert pipeline["_class_name"] in PIPELINES
    named = {name for name, kind in pipeline.items() if isinstance(kind, list) and kind[0]}
    assert named == {path.name for path in config_folder(family).iterdir() if path.is_dir()}
    for encoder in encoders:
        assert encoder["architectures"] == [pipeline[encoder_name(encoder, pipeline)][1]]


def encoder_name(encoder: dict[str, Any], pipeline: dict[str, Any]) -> str:
    wide_is_second = encoder["hidden_size"] == 1280
    return "text_encoder_2" if wide_is_second else "text_encoder"


@pytest.mark.parametrize("family", Family)
def test_time_ids_and_pooled_text_fit_the_embedding_that_adds_them(family: Family) -> None:
    unet = config(family, "unet")
    if "addition_embed_type" not in unet:
        assert family in (Family.SD15, Family.SD2)
        return
    numbers = 5 if config(family, "", "model_index.json").get("requires_aesthetics_score") else 6
    pooled = config(family, "text_encoder_2")["projection_dim"]

    wide = pooled + numbers * unet["addition_time_embed_dim"]

    assert unet["projection_class_embeddings_input_dim"] == wide


@pytest.mark.parametrize("family", Family)
def test_all_families_were_trained_with_the_same_noise(family: Family) -> None:
    path = config_folder(family) / "scheduler" / "scheduler_config.json"

    schedule = NoiseSchedule.read(path)

    assert (schedule.beta_schedule, schedule.num_train_timesteps) == ("scaled_linear", 1000)
    assert (schedule.beta_start, schedule.beta_end) == (0.00085, 0.012)
    assert (schedule.prediction_type, schedule.steps_offset) == ("epsilon", 1)


TOKENIZERS = [
    (family, folder.name)
    for family in Family
    for folder in sorted(config_folder(family).glob("tokenizer*"))
]


@pytest.mark.parametrize(("family", "part"), TOKENIZERS)
def test_a_tokenizer_knows_as_many_words_as_its_text_encoder(family: Family, part: str) -> None:
    encoder = config(family, part.replace("tokenizer", "text_encoder"))

    tokenizer = SingleFile(Path("unread"), family).tokenizer(part)

    assert len(tokenizer) == encoder["vocab_size"] == 49408
    assert tokenizer.model_max_length == encoder["max_position_embeddings"] == 77
    # The numbers that CLIP's own program gives.
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    # OpenAI's encoder was trained with the end token as padding, OpenCLIP's with 0.
    padding = 49407 if encoder["hidden_size"] == 768 else 0
    padded = tokenizer("cat", padding="max_length", max_length=6)["input_ids"]
    assert padded == [49406, 2368, 49407, padding, padding, padding]


def test_words_beyond_ascii_become_bytes_and_come_back() -> None:
    tokenizer: Any = CLIPTokenizer.from_pretrained(VOCABULARY, local_files_only=True)

    ids = tokenizer("naïve 猫 🐈")["input_ids"]

    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "naïve 猫 🐈"


def test_the_vocabulary_is_the_published_one_and_follows_from_the_merges() -> None:
    merges = (VOCABULARY / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    words = json.loads((VOCABULARY / "vocab.json").read_text(encoding="utf-8"))

    assert len(merges) == MERGES
    assert vocabulary(merges) == words
    readme = (VOCABULARY.parent / "README.md").read_text(encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        digest = hashlib.sha256((VOCABULARY / name).read_bytes()).hexdigest()
        assert f"{digest}  {name}\n" in readme


def test_the_vocabulary_carries_its_licence() -> None:
    text = (VOCABULARY / "LICENSE").read_text(encoding="utf-8")

    assert "Permission is hereby granted, free of charge" in text
