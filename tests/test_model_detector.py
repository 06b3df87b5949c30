import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from engine.jobs import Family
from engine.model_detector import (
    FAMILIES,
    FAMILY_NAMES,
    PIPELINES,
    VARIANTS,
    detect,
    detect_lora,
)
from tests.tiny_models import (
    LDM,
    SD15_KEY,
    save_unet,
    unet_shapes,
    write_checkpoint,
    write_folder,
    write_json,
    write_lora,
    write_tensors,
)

DEMO = Path("models/diffusers/dream-demo")
EACH_FAMILY = pytest.mark.parametrize(
    ("dim", "family"),
    [
        (768, Family.SD15),
        (1024, Family.SD2),
        (1280, Family.SDXL_REFINER),
        (2048, Family.SDXL),
    ],
)
ALL_NUMBERS = "768 (SD1.5), 1024 (SD2.x), 1280 (SDXL refiner), 2048 (SDXL base)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def unsupported(path: Path) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        detect(path)
    assert caught.value.path == path
    return caught.value.reason


def malformed(path: Path) -> str:
    with pytest.raises(ModelFormatError) as caught:
        detect(path)
    assert caught.value.path == path
    return caught.value.reason


class TestSingleFile:
    @EACH_FAMILY
    def test_family_by_cross_attention_dim(self, file: Path, dim: int, family: Family) -> None:
        found = detect(write_checkpoint(file, dim))
        assert (found.family, found.cross_attention_dim) == (family, dim)
        assert found.format == "single_file"
        assert found.variant == "text2image"
        assert found.weight_bytes == file.stat().st_size

    @pytest.mark.parametrize(("in_channels", "variant"), VARIANTS.items())
    def test_variant_by_in_channels(self, file: Path, in_channels: int, variant: str) -> None:
        found = detect(write_checkpoint(file, 768, in_channels))
        assert (found.in_channels, found.variant) == (in_channels, variant)

    def test_unknown_in_channels_are_named(self, file: Path) -> None:
        # SD2's depth model has 5, the x4 upscaler 7.
        reason = unsupported(write_checkpoint(file, 1024, 5))
        assert reason == (
            "its UNet takes 5 channels in; supported are "
            "4 (text2image), 9 (inpainting), 8 (instruct_pix2pix)"
        )

    def test_without_a_first_convolution_the_variant_stays_open(self, file: Path) -> None:
        found = detect(write_tensors(file, {SD15_KEY: (320, 768)}))
        assert (found.family, found.in_channels, found.variant) == (Family.SD15, None, None)

    @pytest.mark.parametrize("dim", [0, 1, 512, 767, 769, 4096, 2**40])
    def test_unknown_dimension_is_named(self, file: Path, dim: int) -> None:
        shapes = {SD15_KEY: (0, dim)}
        reason = unsupported(write_tensors(file, shapes))
        assert f"cross_attention_dim {dim} " in reason
        assert ALL_NUMBERS in reason

    def test_keys_that_disagree(self, file: Path) -> None:
        extra = {LDM + "output_blocks.3.1.transformer_blocks.0.attn2.to_k.weight": (2, 1024)}
        assert "disagree on their width: 768, 1024" in malformed(
            write_checkpoint(file, 768, extra=extra)
        )

    @pytest.mark.parametrize("shape", [(), (768,), (2, 768, 1)])
    def test_key_that_is_no_matrix(self, file: Path, shape: tuple[int, ...]) -> None:
        assert "is no matrix" in malformed(write_tensors(file, {SD15_KEY: shape}))

    def test_first_convolution_that_is_none(self, file: Path) -> None:
        write_tensors(file, {SD15_KEY: (2, 768), LDM + "input_blocks.0.0.weight": (2, 4)})
        assert "is no convolution" in malformed(file)

    def test_self_attention_and_merged_controlnets_do_not_count(self, file: Path) -> None:
        extra = {
            LDM + "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": (2, 320),
            "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (2, 1024),
            "model_ema.diffusion_model.input_blocks.1.1.attn2.to_k.weight": (2, 99),
            LDM + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight.scale": (1,),
        }
        assert detect(write_checkpoint(file, 768, extra=extra)).family is Family.SD15

    def test_v_prediction_is_hinted_by_a_bare_key(self, file: Path) -> None:
        assert detect(write_checkpoint(file, 2048)).prediction_type_hint is None
        write_checkpoint(file, 2048, extra={"v_pred": (0,), "ztsnr": (0,)})
        assert detect(file).prediction_type_hint == "v_prediction"

    @pytest.mark.parametrize(
        ("key", "dim", "kind"),
        [
            (LDM + "input_blocks.1.1.time_stack.0.attn2.to_k.weight", 1024, "a video model"),
            (LDM + "input_blocks.1.1.motion_modules.0.norm.weight", 768, "a video model"),
            (LDM + "label_emb.0.0.weight", 1024, "an unCLIP model"),
            ("edm_mean", 2048, "Playground v2.5"),
        ],
    )
    def test_relatives_with_the_same_numbers(
        self, file: Path, key: str, dim: int, kind: str
    ) -> None:
        assert kind in unsupported(write_checkpoint(file, dim, extra={key: (2, dim)}))

    @pytest.mark.parametrize(
        "key",
        [
            SD15_KEY.replace("weight", "scale_weight"),
            SD15_KEY.replace("weight", "weight_scale"),
            LDM + "scaled_fp8",
            "scaled_fp8",
        ],
    )
    def test_weights_that_need_a_scale_are_refused(self, file: Path, key: str) -> None:
        told = unsupported(write_checkpoint(file, 768, extra={key: (1,)}))
        assert "scaled 8-bit" in told
        assert key[-12:] in told
        assert "allowed are plain ones, such as float16" in told

    def test_other_scales_are_no_matter(self, file: Path) -> None:
        names = ("logit_scale", "model.diffusion_model.weight_scale.bias", "not_scaled_fp8")
        extra = dict.fromkeys(names, (1,))
        assert detect(write_checkpoint(file, 768, extra=extra)).family is Family.SD15

    @pytest.mark.parametrize(
        ("key", "kind"),
        [
            ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
            ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Diffusion 3"),
            ("control_model.input_blocks.0.0.weight", "ControlNet"),
            ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "UNet alone"),
            ("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "UNet alone"),
            ("first_stage_model.decoder.conv_in.weight", "a VAE"),
            ("text_model.embeddings.token_embedding.weight", "a text encoder"),
            ("emb_params", "a textual inversion"),
            ("lora_unet_mid_block_attn2_to_k.lora_down.weight", "a LoRA, which belongs into"),
            ("who.knows", "its first tensor is 'who.knows'"),
        ],
    )
    def test_other_files_are_told_apart(self, file: Path, key: str, kind: str) -> None:
        reason = unsupported(write_tensors(file, {key: (2, 768)}))
        assert reason.startswith("no Stable Diffusion checkpoint")
        assert kind in reason

    def test_a_file_without_tensors(self, file: Path) -> None:
        assert "an empty file" in unsupported(write_tensors(file, {}))

    def test_a_truncated_download(self, file: Path) -> None:
        write_checkpoint(file, 768)
        file.write_bytes(file.read_bytes()[:-1])
        assert "the download is not complete" in malformed(file)

    def test_a_pickle(self, tmp_path: Path) -> None:
        path = tmp_path / "model.ckpt"
        path.write_bytes(b"\x80\x02")
        assert "Convert it once" in unsupported(path)

    def test_nothing(self, file: Path) -> None:
        with pytest.raises(ModelNotFoundError):
            detect(file)

    def test_takes_a_string(self, file: Path) -> None:
        assert detect(str(write_checkpoint(file, 768))).path == file


class TestFolder:
    @EACH_FAMILY
    def test_family_of_a_real_unet(self, tmp_path: Path, dim: int, family: Family) -> None:
        found = detect(save_unet(tmp_path, dim))
        assert (found.family, found.cross_attention_dim) == (family, dim)
        assert (found.format, found.variant) == ("diffusers", "text2image")

    @EACH_FAMILY
    def test_family_by_configuration(self, tmp_path: Path, dim: int, family: Family) -> None:
        found = detect(write_folder(tmp_path, {"cross_attention_dim": dim, "in_channels": 9}))
        assert (found.family, found.variant, found.weight_bytes) == (family, "inpainting", 0)

    @EACH_FAMILY
    def test_family_by_weights(self, tmp_path: Path, dim: int, family: Family) -> None:
        found = detect(write_folder(tmp_path, {}, unet_shapes(dim)))
        assert (found.family, found.in_channels) == (family, 4)

    def test_the_demo_model(self) -> None:
        found = detect(DEMO)
        assert (found.family, found.variant) == (Family.SD15, "text2image")
        scheduler = json.loads((DEMO / "scheduler" / "scheduler_config.json").read_text())
        assert found.prediction_type_hint == scheduler["prediction_type"]
        assert found.weight_bytes == sum(f.stat().st_size for f in DEMO.rglob("*.safetensors"))

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            (None, "nothing"),
            ([768, 768], "a JSON list of 2"),
            ([None, 1024], "a JSON list of 2"),
            ("768", "'768'"),
            (768.0, "768.0"),
            (True, "True"),
            ({"a": 1}, "a JSON object of 1"),
        ],
    )
    def test_an_unclear_configuration_is_not_guessed_from(
        self, tmp_path: Path, written: object, told: str
    ) -> None:
        write_folder(tmp_path, {"cross_attention_dim": written, "in_channels": 4})
        reason = malformed(tmp_path)
        assert f"({told})" in reason
        assert ALL_NUMBERS in reason

    def test_a_missing_key_is_not_the_refiners_default(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFormatError):
            detect(write_folder(tmp_path, {"_class_name": "UNet2DConditionModel"}))

    def test_an_unclear_configuration_is_settled_by_the_weights(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": [1024, 1024]}, unet_shapes(1024))
        assert detect(tmp_path).family is Family.SD2

    @pytest.mark.parametrize("dim", [512, 0, -768, 10**300])
    def test_unknown_dimension_is_named(self, tmp_path: Path, dim: int) -> None:
        reason = unsupported(write_folder(tmp_path, {"cross_attention_dim": dim}))
        assert ("a huge number" if dim > 2**63 else str(dim)) in reason
        assert ALL_NUMBERS in reason

    def test_configuration_and_weights_that_disagree(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768}, unet_shapes(1024))
        assert "says cross_attention_dim 768, its weights have 1024" in malformed(tmp_path)

    def test_weights_without_cross_attention(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768}, {"conv_in.weight": (2, 4, 3, 3)})
        assert "have no cross-attention" in malformed(tmp_path)

    @pytest.mark.parametrize("written", [9, "4", 4.0, [4], True])
    def test_in_channels_that_disagree(self, tmp_path: Path, written: object) -> None:
        config = {"cross_attention_dim": 768, "in_channels": written}
        assert "in_channels" in malformed(write_folder(tmp_path, config, unet_shapes(768)))

    @pytest.mark.parametrize("hint", ["epsilon", "v_prediction", None])
    def test_prediction_type_comes_from_the_scheduler(
        self, tmp_path: Path, hint: str | None
    ) -> None:
        config = {"cross_attention_dim": 1024}
        found = detect(write_folder(tmp_path, config, prediction_type=hint))
        assert found.prediction_type_hint == hint

    def test_other_prediction_types(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768}, prediction_type="sample")
        assert "prediction_type is 'sample'; supported are 'epsilon'" in unsupported(tmp_path)

    def test_noise_of_another_kind(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 2048})
        scheduler = {"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "epsilon"}
        write_json(tmp_path / "scheduler/scheduler_config.json", scheduler)
        assert "Playground v2.5" in unsupported(tmp_path)

    @pytest.mark.parametrize("name", sorted(PIPELINES))
    def test_known_pipelines(self, tmp_path: Path, name: str) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768}, pipeline=name)
        assert detect(tmp_path).family is Family.SD15

    @pytest.mark.parametrize(
        "name", ["StableDiffusionLatentUpscalePipeline", "LDMTextToImagePipeline", None, 7, ["x"]]
    )
    def test_other_pipelines(self, tmp_path: Path, name: object) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 1280})
        write_json(tmp_path / "model_index.json", {"_class_name": name})
        assert "supported are StableDiffusionImg2ImgPipeline" in unsupported(tmp_path)

    def test_a_unet_without_a_pipeline_has_a_family(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 2048}, pipeline=None)
        assert detect(tmp_path).family is Family.SDXL

    @pytest.mark.parametrize("name", ["UNetSpatioTemporalConditionModel", 7, ["x"]])
    def test_other_unets(self, tmp_path: Path, name: object) -> None:
        config = {"cross_attention_dim": 1024, "_class_name": name}
        assert "supported is 'UNet2DConditionModel'" in unsupported(write_folder(tmp_path, config))

    def test_unclip(self, tmp_path: Path) -> None:
        config = {"cross_attention_dim": 1024, "class_embed_type": "projection"}
        assert "class embeddings ('projection')" in unsupported(write_folder(tmp_path, config))

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert malformed(tmp_path).startswith("is a folder without unet/config.json")

    def test_an_index_without_a_unet(self, tmp_path: Path) -> None:
        write_json(tmp_path / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
        assert malformed(tmp_path).startswith("is a folder without unet/config.json")

    def test_a_folder_with_a_files_name(self, file: Path) -> None:
        file.mkdir()
        assert "is a folder" in malformed(file)

    def test_a_loop_of_links(self, tmp_path: Path) -> None:
        loop = tmp_path / "loop"
        loop.symlink_to(loop)
        assert "symbolic links" in malformed(loop)

    def test_pickled_weights(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768})
        pickle = tmp_path / "unet" / "diffusion_pytorch_model.bin"
        pickle.write_bytes(b"\x80\x02")
        with pytest.raises(UnsupportedModelError, match="pickles") as caught:
            detect(tmp_path)
        assert caught.value.path == pickle

    def test_what_other_programs_keep_beside_the_parts_is_no_matter(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path, {"cross_attention_dim": 768}, unet_shapes(768))
        alone = detect(folder)
        for name in ("vae_decoder/openvino_model.bin", "vae_1_0/old.safetensors"):
            (folder / name).parent.mkdir()
            (folder / name).write_bytes(b"x" * 1000)
        assert detect(folder) == alone

    def test_weights_that_need_a_scale_are_refused(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768}, unet_shapes(768))
        encoder = write_tensors(tmp_path / "text_encoder" / "m.safetensors", {"a.scale_weight": ()})
        with pytest.raises(UnsupportedModelError, match="scaled 8-bit") as caught:
            detect(tmp_path)
        assert caught.value.path == encoder

    def test_a_truncated_part_is_named(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {"cross_attention_dim": 768}, unet_shapes(768))
        vae = write_tensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"a": (4,)})
        vae.write_bytes(vae.read_bytes()[:-2])
        with pytest.raises(ModelFormatError, match="download is not complete") as caught:
            detect(tmp_path)
        assert caught.value.path == vae

    def test_shards_count_together(self, tmp_path: Path) -> None:
        write_folder(tmp_path, {})
        names = [f"m-0000{i}-of-00002.safetensors" for i in (1, 2)]
        for name, (key, shape) in zip(names, unet_shapes(1024).items(), strict=True):
            write_tensors(tmp_path / "unet" / name, {key: shape})
        index = {"weight_map": dict(zip(unet_shapes(1024), names, strict=True))}
        write_json(tmp_path / "unet" / "m.safetensors.index.json", index)
        assert detect(tmp_path).family is Family.SD2
        (tmp_path / "unet" / names[1]).unlink()
        with pytest.raises(ModelNotFoundError, match=names[1]):
            detect(tmp_path)


class TestLora:
    @EACH_FAMILY
    @pytest.mark.parametrize(
        "layout",
        ["kohya", "kohya-ldm", "peft", "peft-named", "diffusers", "diffusers-processor"],
    )
    def test_family_in_every_layout(
        self, file: Path, layout: str, dim: int, family: Family
    ) -> None:
        found = detect_lora(write_lora(file, dim, layout, rank=3))
        assert (found.family, found.cross_attention_dim, found.rank) == (family, dim, 3)
        assert found.layout == ("kohya" if layout.startswith("kohya") else "diffusers")
        assert found.weight_bytes == file.stat().st_size

    def test_unknown_dimension_is_named(self, file: Path) -> None:
        with pytest.raises(UnsupportedModelError, match="cross_attention_dim 640") as caught:
            detect_lora(write_lora(file, 640))
        assert ALL_NUMBERS in caught.value.reason

    @pytest.mark.parametrize(
        "key",
        [
            "lora_te_text_model_encoder_layers_0_mlp_fc2.lora_down.weight",
            "lora_unet_mid_block_attn2_to_k.hada_w1_a",
            "unet.mid_block.attentions.0.attn1.to_k.lora_A.weight",
        ],
    )
    def test_one_that_does_not_show_its_family(self, file: Path, key: str) -> None:
        with pytest.raises(UnsupportedModelError, match="of no known family"):
            detect_lora(write_tensors(file, {key: (2, 768)}))

    @pytest.mark.parametrize(
        ("key", "width", "family"),
        [
            ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down", 768, Family.SD15),
            ("lora_te_text_model_encoder_layers_9_self_attn_q_proj.lora_down", 1024, Family.SD2),
            ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down", 768, Family.SDXL),
            ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down", 1280, Family.SDXL),
            ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A", 768, Family.SD15),
            ("text_encoder.encoder.layers.0.self_attn.k_proj.lora_A.default", 1024, Family.SD2),
            (
                "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down",
                1280,
                Family.SDXL,
            ),
        ],
    )
    def test_text_encoders_alone_show_it_too(
        self, file: Path, key: str, width: int, family: Family
    ) -> None:
        found = detect_lora(write_tensors(file, {f"{key}.weight": (3, width)}))

        assert (found.family, found.rank) == (family, 3)
        assert FAMILIES[found.cross_attention_dim] is family

    @pytest.mark.parametrize(
        ("encoder", "width"), [("te1", 1024), ("te2", 768), ("te", 1280), ("te", 640)]
    )
    def test_text_encoders_of_no_family(self, file: Path, encoder: str, width: int) -> None:
        key = f"lora_{encoder}_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"
        with pytest.raises(UnsupportedModelError, match=str(width)):
            detect_lora(write_tensors(file, {key: (2, width)}))

    def test_text_encoders_that_disagree(self, file: Path) -> None:
        key = "lora_te_text_model_encoder_layers_{}_mlp_fc1.lora_down.weight"
        shapes = {key.format(number): (2, dim) for number, dim in enumerate((768, 1024))}
        with pytest.raises(ModelFormatError, match="disagree"):
            detect_lora(write_tensors(file, shapes))

    def test_keys_that_disagree(self, file: Path) -> None:
        shapes = {f"lora_unet_b{dim}_attn2_to_k.lora_down.weight": (2, dim) for dim in (768, 1024)}
        with pytest.raises(ModelFormatError, match="disagree"):
            detect_lora(write_tensors(file, shapes))

    def test_a_checkpoint_is_no_lora(self, file: Path) -> None:
        with pytest.raises(UnsupportedModelError, match="no LoRA: it looks like a checkpoint"):
            detect_lora(write_checkpoint(file, 768))

    def test_nothing(self, file: Path) -> None:
        with pytest.raises(ModelNotFoundError):
            detect_lora(file)


class TestAnswers:
    def test_are_plain_json(self, tmp_path: Path) -> None:
        model = detect(write_checkpoint(tmp_path / "m.safetensors", 2048)).as_dict()
        lora = detect_lora(write_lora(tmp_path / "l.safetensors", 2048)).as_dict()
        assert json.loads(json.dumps(model)) == model
        assert model["family"] == lora["family"] == "sdxl"
        assert model["family_name"] == lora["family_name"] == "SDXL base"

    def test_every_family_has_a_number_and_a_name(self) -> None:
        assert set(FAMILIES.values()) == set(FAMILY_NAMES) == set(Family)

    def test_need_no_torch(self) -> None:
        program = (
            "import sys; from engine.model_detector import detect; detect(sys.argv[1]);"
            "assert not {'torch', 'diffusers', 'safetensors', 'numpy'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", program, str(DEMO)], check=True)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
_names = st.sampled_from(
    [
        SD15_KEY,
        LDM + "input_blocks.0.0.weight",
        LDM + "label_emb.0",
        "v_pred",
        "conv_in.weight",
        "mid_block.attn2.to_k.weight",
        "lora_unet_a_attn2_to_k.lora_down.weight",
        "a.attn2.to_k.lora_A.weight",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_shapes = st.dictionaries(
    _names,
    st.lists(st.sampled_from([0, 0, 1, 4, 768, 1024]), max_size=5).map(tuple),
    max_size=4,
)


class TestHostileInput:
    @given(shapes=_shapes)
    @settings(max_examples=200, deadline=None)
    def test_any_tensors(
        self, tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any.safetensors"
        # An empty dimension makes any shape free of weights.
        write_tensors(path, {name: (0, *shape) for name, shape in shapes.items()})
        for look in (detect, detect_lora):
            try:
                assert look(path).family in Family
            except ModelError as error:
                assert str(error).isprintable()  # noqa: PT017 - either outcome is fine

    @given(
        config=st.dictionaries(
            st.sampled_from(
                ["cross_attention_dim", "in_channels", "_class_name", "class_embed_type"]
            ),
            _json | st.sampled_from([4, 768, 1024, "UNet2DConditionModel"]),
        ),
        scheduler=_json,
        index=_json,
    )
    @settings(max_examples=200, deadline=None)
    def test_any_configuration(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        config: dict[str, object],
        scheduler: object,
        index: object,
    ) -> None:
        folder = write_folder(tmp_path_factory.getbasetemp() / "any-folder", config, pipeline=None)
        write_json(folder / "model_index.json", {"_class_name": index})
        write_json(folder / "scheduler/scheduler_config.json", {"prediction_type": scheduler})
        try:
            assert detect(folder).family in Family
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 - either outcome is fine
