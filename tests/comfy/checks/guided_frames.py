"""Hints of a ControlNet and pictures to edit, frame by frame, under cross-frame attention."""

from types import SimpleNamespace
from unittest import mock

import cross_frame_node as node
from cross_frame_node import FRAMES

CLOSE = 1e-5


def _controlled(host, hints):
    import small_image_unets

    return host.run(
        "ControlNetApplyAdvanced", *small_image_unets.texts(), small_image_unets.controlnet(), hints, 1.0, 0.0, 1.0
    )


def _hints(frames):
    import torch

    return torch.rand(frames, 64, 64, 3, generator=torch.Generator().manual_seed(5))


def check_hints_of_a_controlnet_drive_frame_by_frame(host):
    """With one noise, frames 1 to 3 change places as their hints do."""
    (model,) = host.run("T2VSameNoise", node.model(host), 1.0)
    hints, order = _hints(FRAMES), [0, 3, 1, 2]
    for anchor in ("first", "all"):
        patched = node.patched(host, model, anchor)
        straight = node.sample(host, patched, _controlled(host, hints))
        moved = node.sample(host, patched, _controlled(host, hints[order]))
        assert host.difference(straight[order], moved) < CLOSE
        assert host.difference(straight[1:], moved[1:]) > 1e-2
        one, repeated = (
            node.sample(host, patched, _controlled(host, each)) for each in (hints[:1], hints[[0] * FRAMES])
        )
        assert host.difference(one, repeated) < CLOSE


def check_hints_of_another_length_are_announced(host):
    patched = node.patched(host, node.model(host))
    log = mock.patch.object(host.module("nodes.host.zero_shot.hints").log, "warning")
    for hints, frames, videos, said in (
        (1, 4, 1, 0),
        (4, 4, 1, 0),
        (2, 4, 2, 0),
        (4, 4, 2, 0),
        (3, 4, 1, 1),
        (6, 4, 1, 1),
    ):
        with log as warning:
            node.sample(
                host,
                node.patched(host, patched, videos=videos),
                _controlled(host, _hints(hints)),
                frames=frames,
                steps=1,
            )
        assert warning.call_count == said, (hints, frames, videos)
        if said:
            assert f"{hints} hints for {frames} frames" in warning.call_args.args[0] % warning.call_args.args[1:]


def _instructed(host, pictures):
    """Positive, negative and LATENT for an edit of pictures, by core's node."""
    import small_image_unets
    import torch

    def encode(pixels):
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)[:, [0, 1, 2, 0]]

    vae = SimpleNamespace(encode=encode)
    texts = dict(zip(("positive", "negative"), small_image_unets.texts(), strict=True))
    return host.run("InstructPixToPixConditioning", **texts, vae=vae, pixels=pictures)


def _edited(host, model, pictures, style="regular"):
    """Instructed edits of pictures by core's nodes, with a guidance scale for the text and one for the picture."""
    import small_image_unets
    import torch

    positive, negative, _ = _instructed(host, pictures)
    latent = {"samples": torch.zeros(FRAMES, *small_image_unets.LATENT)}
    (guider,) = host.run("DualCFGGuider", model, positive, negative, small_image_unets.texts()[1], 5.0, 1.5, style)
    (sampler,) = host.run("KSamplerSelect", "euler_ancestral")
    (sigmas,) = host.run("BasicScheduler", model, "normal", 2, 1.0)
    (noise,) = host.run("RandomNoise", 3)
    return host.run("SamplerCustomAdvanced", noise, guider, sampler, sigmas, latent)[0]["samples"]


def check_instructed_edits_of_a_video_hold_together(host):
    """With one noise, equal pictures give equal frames, and frames change places as their pictures do."""
    import small_image_unets

    pictures, order = _hints(FRAMES), [0, 2, 3, 1]
    (model,) = host.run("T2VSameNoise", small_image_unets.instruct_pix2pix(), 1.0)
    patched = node.patched(host, model)
    for style in ("nested", "regular"):  # regular is the formula of InstructPix2Pix
        straight, moved = (_edited(host, patched, each, style) for each in (pictures, pictures[order]))
        assert host.difference(straight[order], moved) < CLOSE
        assert host.difference(straight, moved) > 1e-2
    assert host.difference(_edited(host, model, pictures), straight) > 1e-3
    alike = _edited(host, patched, pictures[:1])
    assert host.difference(alike, alike[:1].expand_as(alike)) < CLOSE


def check_pictures_to_edit_of_another_number_are_announced(host):
    import small_image_unets
    import torch

    model = node.patched(host, small_image_unets.instruct_pix2pix())
    latent = torch.zeros(FRAMES, *small_image_unets.LATENT)
    for pictures, said in ((1, 0), (FRAMES, 0), (3, 1), (6, 1)):
        with mock.patch.object(host.module("nodes.host.zero_shot.hints").log, "warning") as warning:
            node.sample(host, model, _instructed(host, _hints(pictures))[:2], steps=1, samples=latent)
        assert warning.call_count == said
        if said:
            assert f"{pictures} pictures to edit for 4 frames" in warning.call_args.args[0] % warning.call_args.args[1:]
