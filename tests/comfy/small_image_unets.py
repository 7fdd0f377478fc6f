"""Small image models of seeded weights, as MODELs of the host: Stable Diffusion 1.5 and XL, InstructPix2Pix, a ControlNet.

The weights follow from diffusers' names and shapes, see `seeding`, so that diffusers' networks of the configurations below
hold the very same ones. in_host.py imports this before the host has its place on the path.
"""

from __future__ import annotations

from types import SimpleNamespace

CONTEXT = 32
"""Width of the texts' embeddings, and of SDXL's pooled one."""

LATENT = (4, 8, 8)
"""Of a frame: channels, height, width."""

_COMMON = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": CONTEXT,
    "norm_num_groups": 32,  # the host's own, which it does not read from a file
}

DIFFUSERS = {
    "sd15": {
        **_COMMON,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,  # two heads
    },
    "sdxl": {
        **_COMMON,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),  # heads of 16 channels
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": CONTEXT + 6 * 256,
    },
}
"""Arguments of diffusers' UNet2DConditionModel for the two layouts."""

_HOST_COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "context_dim": CONTEXT,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
}

_HOST = {
    "sd15": {
        **_HOST_COMMON,
        "transformer_depth": [1, 0],
        "transformer_depth_output": [1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "sdxl": {
        **_HOST_COMMON,
        "transformer_depth": [0, 2],
        "transformer_depth_output": [0, 0, 2, 2],
        "transformer_depth_middle": 2,
        "use_linear_in_transformer": True,
        "adm_in_channels": CONTEXT + 6 * 256,
        "num_classes": "sequential",
    },
}
_HEADS = {
    "sd15": {"num_heads": 2, "num_head_channels": -1},
    "sdxl": {"num_heads": -1, "num_head_channels": 16},
}


def sd15(v_prediction=False):
    """A MODEL in the layout of Stable Diffusion 1.5."""
    return _model("sd15", "SD15", v_prediction)


def sdxl(v_prediction=False):
    """A MODEL in the layout of Stable Diffusion XL; its texts want `pooled_output`, see `texts`."""
    return _model("sdxl", "SDXL", v_prediction)


def instruct_pix2pix():
    """A MODEL in the layout of InstructPix2Pix: Stable Diffusion 1.5 with the picture's latents beside the noisy ones."""
    return _model("sd15", "SD15_instructpix2pix", False, in_channels=8)


def texts(count=2, tokens=77):
    """CONDITIONINGs of seeded embeddings, with the pooled ones of SDXL."""
    normal = _seeding().normal
    return [
        [[normal(f"text {i}", (1, tokens, CONTEXT)), {"pooled_output": normal(f"pooled {i}", (1, CONTEXT))}]]
        for i in range(count)
    ]


def controlnet():
    """A ControlNet of the host for `sd15`, whose hints are pictures of 8 times the latents' size."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management
    import comfy.ops

    layout = {
        name: value for name, value in _HOST["sd15"].items() if name not in ("out_channels", "transformer_depth_output")
    }
    network = comfy.cldm.cldm.ControlNet(
        **layout, **_HEADS["sd15"], hint_channels=3, operations=comfy.ops.disable_weight_init
    )
    network.load_state_dict(_weights({name: (name, value.shape) for name, value in network.state_dict().items()}))
    network.eval().requires_grad_(False)
    return comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device())


def _model(layout, base, v_prediction, **changed):
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils
    import torch

    kind = comfy.model_base.ModelType.V_PREDICTION if v_prediction else comfy.model_base.ModelType.EPS

    class Small(getattr(comfy.supported_models, base)):
        unet_extra_config = _HEADS[layout]

        def model_type(self, state_dict, prefix=""):
            return kind

    config = Small({**_HOST[layout], **changed})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device=torch.device("cpu"))
    network = model.diffusion_model
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    named = comfy.utils.unet_to_diffusers(config.unet_config)
    named = {theirs: ours for theirs, ours in named.items() if not theirs.startswith("class_embedding")}
    network.load_state_dict(
        _weights({ours: (theirs, wanted[ours]) for theirs, ours in named.items() if ours in wanted})
    )
    network.eval().requires_grad_(False)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def _weights(names):
    """Seeded weights: own name -> (the name that seeds it, shape)."""
    seeding = _seeding()
    return {name: seeding.weight(seed, tuple(shape)) for name, (seed, shape) in names.items()}


def _seeding() -> SimpleNamespace:
    import image_models

    return image_models.references().seeding
