"""ToonCrafter's VAE: what its own code was recorded to make of latents and two pictures. Run inside a ComfyUI by in_host.py."""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

import torch

REFERENCES = Path(__file__).resolve().parents[2] / "references"


@cache
def references(name):
    """A module of tests/references, which the host's process has not on its path."""
    package = "t2v_recorded"
    if package not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            package, REFERENCES / "__init__.py", submodule_search_locations=[str(REFERENCES)]
        )
        sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{package}.{name}")


@cache
def recorded():
    return references("outputs").Outputs.load("tooncrafter")


def differ(one, other) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def part(frames):
    """The recorded pixels of frames (t, h, w, 3), 0..1, as they were recorded: (t, 3, h, w), -1..1."""
    return references("record_image_models").part((frames * 2 - 1).movedim(-1, 1))


def load(host):
    """The VAE of a file of its own, in single precision."""
    import safetensors.torch

    if "tooncrafter" not in host.cache:
        path = host.base / "models" / "vae" / "tooncrafter.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(recorded().state_dict(), path)
        host.cache["tooncrafter"] = host.module("nodes.host.models.load").load_other_autoencoder(path)
    vae = host.cache["tooncrafter"]
    vae.process_output = lambda pixels: pixels / 2 + 0.5  # the recorded ones are not limited to 0..1
    return vae


def latent(frames=None):
    recording, normal = references("record_image_models"), references("seeding").normal
    height, width = recording.PIXELS
    z = normal("z", (recording.FRAMES, 4, height // 8, width // 8))
    return {"samples": z[:frames].movedim(0, 1)[None]}


def pictures():
    ends = references("seeding").normal("ends", (2, 3, *references("record_image_models").PIXELS)) * 0.5
    return (ends.movedim(1, -1) + 1) / 2


def check_a_clip_between_two_pictures_is_decoded_as_by_its_own_code(host):
    vae, decode = load(host), host.module("nodes.host.decoding").decode
    found = {
        "plain": differ(part(decode(vae, latent())), recorded().calls["plain"]),
        "both": differ(part(decode(vae, {**latent(), "t2v_pictures": pictures()})), recorded().calls["both"]),
    }
    assert max(found.values()) < 1e-5, found
    return found


def check_core_decodes_a_whole_clip_too(host):
    vae, decode = load(host), host.module("nodes.host.decoding").decode
    ours = decode(vae, latent())
    assert torch.equal(host.run("VAEDecode", vae, latent())[0].reshape(ours.shape), ours)
    frames = {"samples": latent()["samples"][0].movedim(1, 0)}
    assert torch.equal(decode(vae, frames), ours)


def check_a_batch_of_two_clips_equals_two_runs(host):
    vae, decode = load(host), host.module("nodes.host.decoding").decode
    two = torch.cat([latent()["samples"], -latent()["samples"]])
    together = decode(vae, {"samples": two, "t2v_pictures": pictures()})
    apart = [decode(vae, {"samples": each[None], "t2v_pictures": pictures()}) for each in two]
    assert torch.equal(together, torch.cat(apart))


def check_its_encoder_is_that_of_any_vae(host):
    vae = load(host)
    latents = host.run("T2VVAEEncodeFrames", pictures(), vae, 0, 0)[0]["samples"]
    mean = recorded().calls["moments"][:, :4].movedim(0, 1)[None]
    assert differ(latents, mean) < 1e-5


def check_its_weights_are_counted_and_named(host):
    vae = load(host)
    inside = sum(weight.nbytes for weight in vae.first_stage_model.state_dict().values())
    assert vae.patcher.model_size() == inside
    assert "decoder.attn_refinement.2.to_q.weight" in vae.first_stage_model.state_dict()


def check_a_damaged_file_is_refused_in_a_sentence(host):
    weights = recorded().state_dict()
    del weights["decoder.attn_refinement.3.to_v.weight"]
    load_vae = host.module("nodes.host.models.reference_vae").load_vae
    assert "attn_refinement.3.to_v" in host.refusal(lambda: load_vae(weights))


def check_each_clip_of_a_video_through_pictures_is_decoded_with_its_own_two(host):
    vae, decode = load(host), host.module("nodes.host.decoding").decode
    clip, ends = latent()["samples"], pictures()
    through = torch.cat([clip, clip.flip(2)[:, :, 1:]], dim=2)
    both = decode(vae, {"samples": clip, "t2v_pictures": ends})
    back = decode(vae, {"samples": clip.flip(2), "t2v_pictures": ends.flip(0)})
    shown = torch.cat([ends, ends[:1]])
    whole = torch.cat([both, back[1:]])
    assert differ(decode(vae, {"samples": through, "t2v_pictures": shown}), whole) < 1e-5
    assert differ(decode(vae, {"samples": through[:, :, :-1], "t2v_pictures": shown}), whole[:-1]) < 1e-5
