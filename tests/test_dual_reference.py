"""ToonCrafter's decoder computes what its own code computes, and is recognised, converted and used."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.checkpoints import dual_decoder, inspect, load_state_dict, open_checkpoint, vae
from t2v_models.checkpoints.convert import convert
from t2v_models.checkpoints.tensors import as_lazy
from t2v_models.errors import T2VError
from t2v_models.loading import load_pipeline, load_vae
from t2v_models.unet import UNetConfig
from t2v_models.vae import dual_reference
from t2v_models.vae.dual_reference import DecoderConfig, DualReferenceDecoder
from t2v_models.vae.frames import decode_frames
from t2v_models.vae.references import decode_clip, diffusers_features
from tests.references.outputs import Outputs
from tests.references.parity import TOLERANCE, difference
from tests.references.record_image_models import FRAMES, PIXELS, part
from tests.references.seeding import normal

from .support.checkpoints import in_layout
from .support.image_models import write_model
from .support.manifests import manifests, on_meta

RECORDING = Outputs.load("tooncrafter")
SMALL = UNetConfig(in_channels=8, channels=(32, 64), attention_levels=(True, False), num_res_blocks=1, context_dim=64,
                   head_dim=32, init_heads=8, fps_embedding=True, image_attention=True)  # fmt: skip


@pytest.fixture(scope="module")
def autoencoder():
    """The recorded one, loaded as the library loads it."""
    checkpoint = open_checkpoint(RECORDING.state_dict())
    return load_vae(checkpoint, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return normal("z", (FRAMES, 4, PIXELS[0] // 8, PIXELS[1] // 8))


@pytest.fixture(scope="module")
def references(autoencoder) -> list[torch.Tensor]:
    """The features of the recorded pictures at the ends."""
    return diffusers_features(autoencoder.encoder, normal("ends", (2, 3, *PIXELS)) * 0.5)


def test_the_encoder_is_stable_diffusions(autoencoder):
    moments = autoencoder.quant_conv(autoencoder.encoder(normal("ends", (2, 3, *PIXELS)) * 0.5))
    assert difference(moments, RECORDING.calls["moments"]) < TOLERANCE


def test_it_decodes_a_clip_without_pictures_as_recorded(autoencoder, latents):
    assert difference(part(autoencoder.decode(latents).sample), RECORDING.calls["plain"]) < TOLERANCE


def test_it_decodes_a_clip_with_pictures_as_recorded(autoencoder, latents, references):
    assert difference(part(autoencoder.decoder(latents, references)), RECORDING.calls["once"]) < TOLERANCE
    assert difference(part(decode_clip(autoencoder.decoder, latents, references)), RECORDING.calls["both"]) < TOLERANCE
    assert difference(RECORDING.calls["once"], RECORDING.calls["plain"]) > 0.1


def test_a_refinement_of_zeros_is_the_plain_decoder(autoencoder, latents, references):
    before = {name: weight.clone() for name, weight in autoencoder.state_dict().items()}
    for module in autoencoder.decoder.attn_refinement:
        last = module.to_out[0] if hasattr(module, "to_out") else module.conv
        last.weight.zero_()
        last.bias.zero_()
    try:
        plain = autoencoder.decoder(latents)
        assert torch.equal(autoencoder.decoder(latents, references), plain)
        assert decode_clip(autoencoder.decoder, latents, None).equal(plain)
    finally:
        autoencoder.load_state_dict(before)


def test_frames_a_few_at_a_time_are_all_frames_at_once(autoencoder, latents, references, monkeypatch):
    whole = decode_clip(autoencoder.decoder, latents, references)
    monkeypatch.setattr(dual_reference, "SPATIAL_ELEMENTS", 2**14)
    assert difference(decode_clip(autoencoder.decoder, latents, references), whole) < TOLERANCE


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 6])
def test_clips_of_any_length_are_decoded_and_those_too_short_for_a_second_pass_once(autoencoder, references, frames):
    z = normal("short", (frames, 4, PIXELS[0] // 8, PIXELS[1] // 8))
    once, twice = autoencoder.decoder(z, references), decode_clip(autoencoder.decoder, z, references)
    assert twice.shape == (frames, 3, *PIXELS)
    changed = (once != twice).flatten(1).any(1).nonzero().flatten().tolist()
    assert changed == ([] if frames < 6 else [2, 3])


def test_its_names_and_shapes_survive_the_way_there_and_back():
    theirs = as_lazy(RECORDING.state_dict())
    back = vae.to_ldm(vae.from_ldm(theirs, "it"))
    assert set(back) == set(theirs)
    assert all(torch.equal(back[name].load(), tensor.load()) for name, tensor in theirs.items())


def test_the_published_decoder_has_its_number_of_weights():
    decoder = DualReferenceDecoder(DecoderConfig(), device="meta")
    assert len(decoder.state_dict()) == 286
    assert sum(weight.numel() for weight in decoder.parameters()) == 65_778_223


def test_the_published_file_is_recognised_and_survives_the_way_there_and_back():
    shapes = manifests()["tooncrafter-vae"]
    assert sum(name.startswith("decoder.") for name in shapes) == 286
    unet = on_meta(manifests()["tooncrafter"], prefix="model.diffusion_model.")
    checkpoint = open_checkpoint(unet | on_meta(shapes, prefix="first_stage_model."))
    assert checkpoint.family.name == "tooncrafter-512"
    lazy = checkpoint.lazy_vae()
    assert lazy is not None
    assert dual_decoder.config_of(lazy) == DecoderConfig()
    assert {name: tensor.shape for name, tensor in vae.to_ldm(lazy).items()} == shapes


def whole_model() -> dict[str, torch.Tensor]:
    """A small file of ToonCrafter: DynamiCrafter's UNet and its own autoencoder."""
    unet = in_layout("videocrafter", SMALL, "model.diffusion_model.")
    return unet | {f"first_stage_model.{name}": weight for name, weight in RECORDING.state_dict().items()}


def test_a_file_is_recognised_by_its_decoder():
    tensors = whole_model()
    assert inspect(tensors).family.name == "tooncrafter-512"
    plain = {name: weight for name, weight in tensors.items() if "attn_refinement" not in name}
    assert (
        inspect({name: weight for name, weight in plain.items() if "first_stage" not in name}).family.name == "custom"
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["diffusers", "videocrafter"])
def test_a_conversion_keeps_the_decoder_exactly(layout, tmp_path):
    torch.save({"state_dict": whole_model()}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "there", layout)
    there = open_checkpoint(tmp_path / "there")
    assert there.family.name == "tooncrafter-512"
    if layout == "diffusers":  # which diffusers must not load as a VAE of its own
        assert json.loads((tmp_path / "there" / "model_index.json").read_text())["vae"][0] != "diffusers"
    first, again = open_checkpoint(tmp_path / "model.ckpt").vae(), there.vae()
    assert first is not None
    assert again is not None
    assert set(first) == set(again)
    assert all(torch.equal(again[name], weight) for name, weight in first.items())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t.pop("decoder.attn_refinement.2.to_k.weight"), "attn_refinement.2.to_k"),
        (lambda t: t.pop("decoder.mid.block_1.mix_factor"), "mix_factor"),
        (
            lambda t: t.update({"decoder.up.1.block.0.time_stack.in_layers.2.weight": torch.ones(64, 64, 1, 1, 1)}),
            "shape",
        ),
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("decoder.up.0.")], "incomplete"),
        (lambda t: t.pop("encoder.conv_in.weight"), "incomplete"),
    ],
)
def test_a_damaged_decoder_is_refused_in_a_sentence(damage, said):
    tensors = RECORDING.state_dict()
    damage(tensors)
    with pytest.raises(T2VError, match=said):
        open_checkpoint(tensors).lazy_vae()


def test_a_pipeline_decodes_with_the_pictures_at_the_ends(autoencoder, latents, references):
    ends = (normal("ends", (2, 3, *PIXELS)) * 0.5 / 2 + 0.5).movedim(1, -1)
    scaled, device = latents.transpose(0, 1) * 0.18215, torch.device("cpu")
    for given, wanted in ((ends, references), (None, None)):
        frames = torch.cat(list(decode_frames(autoencoder, scaled, device, given)))
        pixels = decode_clip(autoencoder.decoder, latents, wanted)
        assert difference(frames, (pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1)) < TOLERANCE


def test_another_vae_has_no_such_decoder():
    assert not dual_decoder.is_dual({"decoder.up.0.block.0.conv1.weight": 0})
    assert dual_decoder.split({"decoder.conv_in.weight": 0}) == ({}, {"decoder.conv_in.weight": 0})


@pytest.mark.slow
def test_a_whole_model_goes_from_one_picture_to_another_and_its_decoder_sees_both(tmp_path):
    folder = write_model(tmp_path, "dynamicrafter-512-interp")
    tensors = load_state_dict(folder / "model.safetensors")
    tensors = {name: weight for name, weight in tensors.items() if not name.startswith("first_stage_model.")}
    tensors |= {f"first_stage_model.{name}": weight for name, weight in RECORDING.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    pipeline = load_pipeline(folder)
    assert pipeline.family.name == "tooncrafter-512"
    first, last = torch.rand(2, 32, 64, 3, generator=torch.Generator().manual_seed(0))
    call = {"frames": 16, "width": 64, "height": 32, "steps": 2}
    video = pipeline("a boat", image=first, end_image=last, **call)
    ends, device = torch.stack([first, last]), torch.device("cpu")
    seen = torch.cat(list(decode_frames(pipeline.vae, video.latents[0], device, ends)))
    unseen = torch.cat(list(decode_frames(pipeline.vae, video.latents[0], device)))
    assert difference(video.frames[0], seen) < TOLERANCE
    assert difference(seen, unseen) > 1e-2
    assert torch.equal(pipeline("a boat", image=first, end_image=last, **call).latents, video.latents)
