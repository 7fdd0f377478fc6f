"""What enters the nodes from outside: numbers, texts, images and latents of a wrong form become a sentence or are converted."""

from __future__ import annotations

import math

NUMBERS = [math.nan, math.inf, -math.inf]


def refused(call) -> str:
    """The sentence of a T2VError; fails for any other exception and for none."""
    said: list[Exception] = []
    try:
        call()
    except Exception as error:
        said.append(error)
    assert [type(error).__name__ for error in said] == ["T2VError"], said
    return str(said[0])


def inputs_of(host, name: str, kind: str) -> list:
    """The inputs of a node that have a type."""
    return [each for each in host.node(name).GET_SCHEMA().inputs if str(each.io_type) == kind]


def ours(host) -> list[str]:
    import nodes

    return sorted(name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("T2V"))


def check_no_node_takes_a_number_that_is_none(host):
    values, tried = host.module("nodes.host.values"), 0
    for name in ours(host):
        for kind in ("FLOAT", "INT"):
            for each in inputs_of(host, name, kind):
                for number in [*NUMBERS, each.min - 1, each.max + 1, "7", [1], 1j]:
                    assert f"{each.id} is" in refused(lambda each=each, number=number: values.checked(each, number))
                assert values.checked(each, each.default) == each.default
                tried += 1
    assert tried > 50, tried
    return tried


def check_every_node_checks_what_enters(host):
    """The check stands around `execute`: the first argument that is wrong ends it before any work."""
    wrong = {"FLOAT": math.nan, "INT": math.inf, "STRING": "a\0b", "COMBO": "nothing of the sort", "IMAGE": "a picture"}
    values, asked = host.module("nodes.host.values"), []
    for name in ours(host):
        schema = host.node(name).GET_SCHEMA()
        kinds = [each for each in schema.inputs if str(each.io_type) in wrong]
        kinds = [each for each in kinds if each.id not in values.FILES]
        for each in kinds:
            value = wrong[str(each.io_type)]
            given = {each.id: [value] if schema.is_input_list else value}  # as the host hands values to such a node
            said = refused(lambda name=name, given=given: host.run(name, **given))
            assert each.id in said, (name, said)
        asked += kinds
    assert len(asked) > 60, len(asked)
    return len(asked)


def check_numbers_of_links_obey_the_widgets_bounds(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 4, 1)
    run = ("T2VVideoSampler", model, positive, negative, latent)
    said = [
        refused(lambda: host.run(*run, 1, 2, 4.0, "ddim", "diffusers", 1.0, cfg_rescale=5.0)),
        refused(lambda: host.run(*run, 1, 2, math.nan, "ddim", "diffusers", 1.0)),
        refused(lambda: host.run(*run, 1, 2, 4.0, "ddim", "diffusers", 1.0, eta=-0.5)),
        refused(lambda: host.run(*run, 1, 0, 4.0, "ddim", "diffusers", 1.0)),
        refused(lambda: host.run(*run, 1, 2, 4.0, "no sampler", "diffusers", 1.0)),
    ]
    assert [text.split()[0] for text in said] == ["cfg_rescale", "cfg", "eta", "steps", "sampler_name"], said
    return said[0]


def check_texts_that_are_no_text_are_refused_everywhere(host):
    model, clip, _ = host.tiny()
    for text in ("a\0b", "a \ud800 b", "\udfff"):
        for call in (
            lambda text=text: host.run("T2VTextEncode", clip, text),
            lambda text=text: host.run("T2VStory", clip, text, 4, 8.0),
            lambda text=text: host.run("T2VFilm", model=model, clip=clip, story=text),
            lambda text=text: host.run("T2VSaveVideo", filename_prefix=text),
        ):
            assert "no text" in refused(call)
    assert "characters" in refused(lambda: host.run("T2VTextEncode", clip, "word " * 20_000))


def check_images_of_numpy_and_bytes_become_the_same_latent(host):
    import numpy as np
    import torch

    vae = host.tiny()[2]
    whole = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = whole.float() / 255
    (latent,) = host.run("T2VVAEEncodeFrames", images, vae, 0, 0)
    forms = [
        whole,
        whole.numpy(),
        images.numpy(),
        images.numpy()[:, :, ::-1][:, :, ::-1],
        whole.numpy().astype(np.uint16) * 257,
    ]
    for form in forms:
        (other,) = host.run("T2VVAEEncodeFrames", form, vae, 0, 0)
        assert host.difference(latent["samples"], other["samples"]) < 1e-5, form.dtype
    values = host.module("nodes.host.values")
    (given,) = inputs_of(host, "T2VVAEEncodeFrames", "IMAGE")
    assert values.checked(given, images) is images
    for wrong in (
        whole.int(),
        whole.bool(),
        whole.numpy().astype(object),
        list(images),
        "images",
        images.to(torch.complex64),
    ):
        assert "images" in refused(lambda wrong=wrong: host.run("T2VVAEEncodeFrames", wrong, vae, 0, 0))


def check_what_is_no_latent_or_conditioning_is_a_sentence(host):
    import torch

    model, clip, vae = host.tiny()
    (positive,) = host.conds(clip, "a red circle")
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 4, 1)
    how = (1, 2, 4.0, "ddim", "diffusers", 1.0)
    for wrong in ({}, {"samples": None}, {"samples": [1, 2]}, None, torch.zeros(1, 4, 4, 4, 4), "a latent"):
        assert "samples" in refused(lambda wrong=wrong: host.run("T2VVAEDecodeFrames", wrong, vae))
        assert "samples" in refused(
            lambda wrong=wrong: host.run("T2VVideoSampler", model, positive, positive, wrong, *how)
        )
        assert "samples" in refused(lambda wrong=wrong: host.run("T2VLatentLayout", wrong, "frames", 0))
    for wrong in ([], None, {}, [torch.zeros(1, 77, 32)], "a text"):
        assert "conditioning" in refused(
            lambda wrong=wrong: host.run("T2VVideoSampler", model, wrong, positive, latent, *how)
        )
        assert "conditioning" in refused(
            lambda wrong=wrong: host.run("T2VContinue", model, wrong, positive, latent, 2, 1, 2, 4.0)
        )
    as_array = {"samples": latent["samples"].numpy()}
    assert (
        host.run("T2VVAEDecodeFrames", as_array, vae)[0].shape == host.run("T2VVAEDecodeFrames", latent, vae)[0].shape
    )


def check_what_is_no_model_clip_or_vae_is_a_sentence(host):
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 4, 1)
    for wrong in ("a text", 5, {}, [1]):
        assert "vae is" in refused(lambda wrong=wrong: host.run("T2VVAEDecodeFrames", latent, wrong))
        assert "clip is" in refused(lambda wrong=wrong: host.run("T2VTextEncode", wrong, "a red circle"))
        assert "model is" in refused(lambda wrong=wrong: host.run("T2VModelConditioning", wrong, 8.0, 0.0, 0.0))
    for name, args in (("T2VVAEDecodeFrames", (latent, None)), ("T2VTextEncode", (None, "a"))):
        assert "T2VModelLoader" in refused(lambda name=name, args=args: host.run(name, *args))


def check_sizes_that_no_memory_holds_are_a_sentence(host):
    model, clip, _ = host.tiny()
    (large,) = host.run("T2VEmptyLatent", 1024, 1024, 4, 1)
    huge = [
        lambda: host.run("T2VEmptyLatent", 64, 64, 65536, 4096),
        lambda: host.run("T2VEmptyLatent", 8192, 8192, 65536, 1),
        lambda: host.run(
            "T2VFilm", model=model, clip=clip, story="a red circle", frames=1_000_000, fps=0.0, width=512, height=512,
            method="windows", seed=1, steps=2, cfg=3.0, context_length=16, context_overlap=8, fuse_method="pyramid",
            closed_loop=False, resume=False,
        ),
        lambda: host.run("T2VContinue", model, *host.conds(clip, "a", ""), large, 1_000_000, 1, 2, 4.0),
    ]  # fmt: skip
    said = [refused(call) for call in huge]
    assert all("GB of memory" in text and "are free:" in text for text in said), said
    return said


def check_only_the_pack_itself_speaks_on_the_terminal(host):
    """No warning, print or log line of numpy, torch, transformers or the host, whatever odd value a node is given."""
    import contextlib
    import io
    import logging
    import warnings

    import numpy as np
    import torch

    _, clip, vae = host.tiny()
    frozen = np.zeros((2, 32, 32, 3), np.float32)
    frozen.flags.writeable = False
    black = torch.full((2, 32, 32, 3), math.nan)
    settings = host.module("nodes.host.save_video").Settings
    save = host.module("nodes.host.save_video").save
    calls = [
        lambda: host.run("T2VTextEncode", clip, "a red circle " * 200),
        lambda: host.run("T2VTextEncode", clip, "redcircle" * 300),
        lambda: host.run("T2VStory", clip, "0-2: " + "red " * 200, 2, 8.0),
        lambda: host.run("T2VVAEEncodeFrames", frozen, vae, 0, 0),
        lambda: save((2, black), settings(8.0, "h264-mp4", 80, "quiet", 0, False, True), None, {}),
        lambda: save((2, black.nan_to_num()), settings(8.0, "h264-mp4", 80, "../quiet", 0, False, True), None, {}),
    ]
    spoken: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: spoken.append(f"{record.pathname}: {record.getMessage()}")
    printed, pack = io.StringIO(), str(host.pack.resolve())
    loggers = [logging.getLogger(), logging.getLogger("transformers")]  # which hands its records to the root in CI only
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(printed):
            warnings.simplefilter("always")
            for call in calls:
                with contextlib.suppress(ValueError):
                    call()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    others = [line for line in spoken if pack not in line and "custom_nodes" not in line]
    others += [str(each.message) for each in warned]
    others += [printed.getvalue()] if printed.getvalue() else []
    assert not others, others
    return len(spoken)


def check_windows_without_number_are_refused_at_once(host):
    for length, overlap in ((4096, 4095), (1024, 1023), (4096, 4094)):
        said = refused(lambda how=(length, overlap): host.run("T2VDrawWindows", 65536, 8.0, *how, "pyramid", False))
        assert "too many" in said
    assert host.run("T2VDrawWindows", 65536, 8.0, 16, 8, "pyramid", False)[0].ndim == 4
