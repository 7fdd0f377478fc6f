"""Clips that end at a picture or go on to their beginning. Run inside a ComfyUI by in_host.py."""

import image_models as small
import torch


def check_a_loop_leaves_its_last_frame_out_and_toon_has_its_pictures(host):
    from unittest import mock

    vae = small.load(host)[2]
    with small.heard(host, "nodes.host.image_to_video") as lines:
        latent = small.animate(host, "dynamicrafter-512-loop")[3]
    assert latent["samples"].shape[2] == 16
    assert [("VAE Decode" in line, "length 15" in line) for line in lines] == [(True, True)], lines
    (flat,) = host.run("VAEDecode", vae, latent)  # core's, which gets the samples alone
    (left,) = host.run("ImageFromBatch", flat, 0, 15)
    assert len(flat) == 16
    (images,) = host.run("T2VVAEDecodeFrames", latent, vae)
    assert images.shape == (15, 32, 64, 3)
    assert small.differ(left, images) < 1e-5
    assert [count for count, _ in host.module("nodes.host.save_video").clips(None, latent, vae)] == [15]
    assert len(host.run("T2VVAEDecodeFrames", small.animate(host)[3], vae)[0]) == 16
    module = host.module("nodes.host.image_to_video")
    with mock.patch.object(module, "ReferenceVAE", type(vae)):
        last = small.picture("last", 50, 40)
        pictures = small.animate(host, "dynamicrafter-512-interp", end_image=last)[3][module.PICTURES]
        alone = small.animate(host, "dynamicrafter-512-interp")[3][module.PICTURES]
    assert pictures.shape == alone.shape == (2, 32, 64, 3)
    assert torch.equal(alone[0], alone[1])
    assert torch.equal(pictures[0], alone[0])
    assert small.differ(pictures[1], alone[1]) > 1e-2


def check_a_video_through_pictures_is_clip_after_clip_of_a_model_that_ends_at_pictures(host):
    from unittest import mock

    family = "dynamicrafter-512-interp"
    images = [small.picture(), small.picture("last", 50, 40), small.picture("third")]
    made = small.between(host, images, family)["samples"]
    assert made.shape[2] == 31
    first = small.sample(host, small.animate(host, family, images[0], end_image=images[1]))
    second = small.sample(host, small.animate(host, family, images[1], end_image=images[2]), seed=8)
    assert torch.equal(made[:, :, :15], first[:, :, :15])
    assert torch.equal(made[:, :, 15:], second)
    module = host.module("nodes.host.image_to_video")
    with mock.patch.object(module, "ReferenceVAE", type(small.load(host, family)[2])):
        shown = small.between(host, images, family)["t2v_pictures"]
    assert shown.shape == (3, 32, 64, 3)
    other = small.load(host)[0]
    assert "cannot end at a picture" in host.refusal(lambda: small.between(host, images, family, model=other))
