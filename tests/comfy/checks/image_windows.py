"""Models that take pictures, in context windows. Run inside a ComfyUI by in_host.py."""

import image_models as small
import torch


def check_windows_over_the_models_length_equal_none(host):
    model, *others = prepared = small.animate(host)
    plain = small.sample(host, prepared)
    (windowed,) = host.run("T2VWindows", model, 16, 8, "pyramid", False)
    assert torch.equal(small.sample(host, (windowed, *others)), plain)
    assert (
        small.differ(
            small.ksample(host, (small.core_windows(host, model, 16, 8), *others)), small.ksample(host, prepared)
        )
        < 1e-5
    )


def check_each_window_has_the_tokens_of_its_places_and_its_own_latents(host):
    """Two windows side by side are two clips: of a picture in every frame, and of one at each end."""
    import comfy.sample

    noise = torch.randn(1, 4, 32, 4, 8, generator=torch.Generator().manual_seed(1))
    for family in ("dynamicrafter-512", "dynamicrafter-512-interp"):
        model, positive, negative, latent = small.animate(host, family, frames=32)
        windowed = small.core_windows(host, model, 16, 0)
        how = (2, 7.5, "euler", "normal")
        both = comfy.sample.sample(windowed, noise, *how, positive, negative, latent["samples"])
        for start in (0, 16):
            part = slice(start, start + 16)

            def cut(conditioning, part=part):
                (text, extra), name = conditioning[0], "concat_latent_image"
                return [[text, {**extra, name: extra[name][:, :, part]}]]

            alone = comfy.sample.sample(
                model, noise[:, :, part], *how, cut(positive), cut(negative), latent["samples"][:, :, part]
            )
            assert small.differ(both[:, :, part], alone) < 1e-4, (family, start)


def check_our_windows_cut_latents_as_they_cut_the_clip(host):
    handler = host.module("nodes.host.sampling.context_windows").WindowHandler
    pictures, windows = host.module("nodes.host.models.pictures"), host.module("t2v_models.sampling.windows").Windows
    import comfy.conds
    import comfy.context_windows

    latents = torch.arange(32.0).view(1, 1, 32, 1, 1)
    tokens = torch.zeros(1, 256, 32)  # as wide as the clip is long
    entry = {"model_conds": {
        pictures.BESIDE: pictures.FrameLatents(latents), pictures.TOKENS: comfy.conds.CONDRegular(tokens),
    }}  # fmt: skip
    model = small.load(host)[0].model
    for numbers in ([0, 1, 2], [30, 31, 0], list(range(16, 32))):
        window = comfy.context_windows.IndexListContextWindow(numbers, dim=2, **small.newer_window(32))
        each = handler(windows(16, 8))
        each._model = model
        (cut,) = each.get_resized_cond([entry], torch.zeros(1, 4, 32, 1, 1), window)
        assert cut["model_conds"][pictures.BESIDE].cond.flatten().tolist() == numbers
        assert cut["model_conds"][pictures.TOKENS].cond.shape == tokens.shape


def check_32_and_64_frames_run_in_windows(host):
    for frames in (32, 64):
        for family in ("dynamicrafter-512", "dynamicrafter-512-interp"):
            model, *others = small.animate(host, family, frames=frames)
            (windowed,) = host.run("T2VWindows", model, 16, 8, "pyramid", False)
            samples = small.sample(host, (windowed, *others), steps=1)
            assert samples.shape == (1, 4, frames, 4, 8)
            assert samples.isfinite().all()
        longer = small.core_windows(host, model, 16, 4)
        assert small.ksample(host, (longer, *others), steps=1).isfinite().all()
