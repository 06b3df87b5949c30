"""The four networks, all stock modules of transformers and diffusers, at demo size."""

from __future__ import annotations

# ruff: noqa: TID253 - the training code owns its torch; no front end imports it
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

PICTURE_SIDE = 128
LATENT_SIDE = PICTURE_SIDE // 8
TEXT_WIDTH = 768  # as Stable Diffusion 1.5's, so that prompts take the same road
SCALING_FACTOR = 0.18215  # likewise


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Makes an untrained text encoder: one CLIP layer, 768 wide, for that vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=12,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=TEXT_WIDTH,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """Makes an untrained UNet for 4 by 16 by 16 latents.

    The prompt reaches it twice: pooled into the time embedding, which scales and shifts every
    block, and by cross-attention in the middle. Each block's last convolution starts at zero, so
    that training starts from a network that passes its input on.
    """
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=(48, 80),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=12,
    )
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return unet


def make_autoencoder() -> AutoencoderKL:
    """Makes an untrained autoencoder, 8 pixels a latent, without chance in its encoder.

    Stock pipelines sample from the encoder's distribution; its deviation is fixed near zero here,
    because the latents are defined by a formula that knows no chance.
    """
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=PICTURE_SIDE,
        scaling_factor=SCALING_FACTOR,
    )
    with torch.no_grad():
        # Start at the latents' scale, so that the networks inside see numbers around one.
        eye = torch.eye(4).view(4, 4, 1, 1)
        autoencoder.post_quant_conv.weight.copy_(eye * SCALING_FACTOR)
        autoencoder.post_quant_conv.bias.zero_()
        autoencoder.quant_conv.weight.zero_()
        autoencoder.quant_conv.weight[:4, :4].copy_(eye / SCALING_FACTOR)
        autoencoder.quant_conv.bias.copy_(torch.tensor([0.0] * 4 + [-20.0] * 4))
    return autoencoder


def make_scheduler() -> DDIMScheduler:
    """Makes the noise schedule that training and drawing share.

    Linear betas leave next to no picture in the last step's noise. With Stable Diffusion's own
    betas enough is left that a network this small takes the background from the noise and not
    from the prompt.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
