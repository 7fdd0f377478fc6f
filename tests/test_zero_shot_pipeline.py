"""Zero-shot videos of diffusers' image models, against diffusers' own deprecated pipelines."""

from __future__ import annotations

import json

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.sampling.schedule import NoiseSchedule
from t2v_models.sampling.story import parse_story
from t2v_models.zero_shot.controls import Control
from t2v_models.zero_shot.loading import load_controlnet, load_zero_shot
from t2v_models.zero_shot.motion import Motion
from t2v_models.zero_shot.pipeline import ZeroShotPipeline
from t2v_models.zero_shot.steps import SCHEDULERS, Steps

from .support import image_pipelines

QUICK = {"steps": 20, "frames": 4, "seed": 5}


@pytest.fixture(scope="module")
def folder(image_models_folder):
    return image_models_folder


@pytest.fixture(scope="module")
def sd(folder):
    return load_zero_shot(folder / "sd")


@pytest.fixture(scope="module")
def sdxl(folder):
    return load_zero_shot(folder / "sdxl")


def latents(pipeline, prompt="a red circle", **options):
    request = pipeline.request(prompt, options.pop("negative_prompt", ""), **(QUICK | options))
    return torch.cat(list(pipeline.latents(request)))


def close(one, other, bound=1e-4):
    """Whether two tensors differ by a share of at most `bound`."""
    return float((one - other).norm() / other.norm()) < bound


def of_diffusers(pipe, *, xl, steps, t0, t1, frames=4, **options):
    """diffusers' TextToVideoZeroPipeline on the modules of a pipeline, which gets its own attention back."""
    from diffusers import TextToVideoZeroPipeline, TextToVideoZeroSDXLPipeline

    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    if xl:
        parts.pop("feature_extractor")
        reference = TextToVideoZeroSDXLPipeline(**parts, add_watermarker=False)
    else:
        reference = TextToVideoZeroPipeline(**parts, requires_safety_checker=False)
    reference.set_progress_bar_config(disable=True)
    given = {"guidance_scale": 7.5, "motion_field_strength_x": 12, "motion_field_strength_y": 12, **options}
    generator = torch.Generator().manual_seed(QUICK["seed"])
    call = {"prompt": "a red circle", "video_length": frames, "num_inference_steps": steps, "t0": t0, "t1": t1}
    return reference(**call, output_type="latent", generator=generator, **given).images


@pytest.mark.parametrize("xl", [False, True], ids=["Stable Diffusion", "XL"])
@pytest.mark.parametrize(
    ("prediction_type", "motion"),
    [("epsilon", (12, 12)), pytest.param("v_prediction", (-64, 90), marks=pytest.mark.slow)],
)
def test_a_whole_run_equals_diffusers(xl, prediction_type, motion):
    make = image_pipelines.stable_diffusion_xl if xl else image_pipelines.stable_diffusion
    pipe = make(prediction_type=prediction_type)
    motion_of = {"motion_field_strength_x": motion[0], "motion_field_strength_y": motion[1]}
    expected = of_diffusers(pipe, xl=xl, steps=25, t0=22, t1=23, **motion_of)
    made = latents(
        ZeroShotPipeline(make(prediction_type=prediction_type)), steps=25, motion=Motion(x=motion[0], y=motion[1])
    )
    assert close(made, expected)
    assert not close(made[1:], expected[:1].expand_as(made[1:]), 1e-2)


@pytest.mark.slow
def test_the_paper_s_50_steps_equal_diffusers():
    expected = of_diffusers(image_pipelines.stable_diffusion(), xl=False, steps=50, t0=44, t1=47)
    assert close(latents(ZeroShotPipeline(image_pipelines.stable_diffusion()), steps=50), expected)


def with_attention_of_diffusers(pipe, nets, frames):
    for net in (pipe.unet, *nets):
        net.set_attn_processor(image_pipelines.module_of_diffusers().CrossFrameAttnProcessor2_0(batch_size=2))


@pytest.mark.slow
def test_a_control_is_diffusers_recipe_of_one_noise_and_cross_frame_attention_in_both_networks():
    from diffusers import StableDiffusionControlNetPipeline

    frames = 3
    hints = torch.rand(frames, 64, 64, 3)
    pipe = image_pipelines.stable_diffusion()
    net = image_pipelines.controlnet(pipe.unet)
    reference = StableDiffusionControlNetPipeline(**pipe.components, controlnet=net, requires_safety_checker=False)
    reference.set_progress_bar_config(disable=True)
    with_attention_of_diffusers(pipe, [net], frames)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)).repeat(frames, 1, 1, 1)
    expected = reference(
        ["a red circle"] * frames,
        image=hints.movedim(-1, 1),
        latents=noise,
        num_inference_steps=20,
        guidance_scale=7.5,
        controlnet_conditioning_scale=0.8,
        output_type="latent",
    ).images
    own = ZeroShotPipeline(image_pipelines.stable_diffusion())
    control = Control(image_pipelines.controlnet(own.pipe.unet), hints, 0.8)
    assert close(latents(own, frames=3, controls=[control]), expected)
    assert close(latents(own, frames=3, controls=[control], chunk=2), expected)


@pytest.mark.slow
def test_chunks_equal_the_whole(sd):
    whole = latents(sd, frames=9, chunk=0, guidance_scale=1)
    for chunk in (2, 3, None):
        assert close(latents(sd, frames=9, chunk=chunk, guidance_scale=1), whole)
    assert close(latents(sd, frames=5, guidance_scale=1), whole[:5])


@pytest.mark.slow
def test_chunks_equal_the_whole_with_two_text_encoders_prompts_a_frame_and_masks(sdxl):
    prompts = [f"a circle {word}" for word in ("red", "green", "blue", "red", "grey")]
    masks = torch.zeros(5, 64, 64)
    masks[:, 20:40, 20:40] = 1
    options = {"frames": 5, "masks": masks, "motion": Motion("circle", 40, 40)}
    whole = latents(sdxl, prompts, chunk=0, **options)
    assert close(latents(sdxl, prompts, chunk=2, **options), whole)
    assert not close(latents(sdxl, prompts[0], chunk=0, **options)[1:], whole[1:], 1e-3)


def test_one_frame_is_plain_sampling(sd):
    expected = sd.pipe(
        "a red circle",
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)),
        num_inference_steps=20,
        guidance_scale=7.5,
        output_type="latent",
    ).images
    assert close(latents(sd, frames=1), expected)
    assert close(latents(sd, frames=3)[:1], expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_reaches_what_the_model_predicts_from_any_state(scheduler, prediction_type):
    config = {
        **image_pipelines.BETAS,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": prediction_type,
    }
    schedule = NoiseSchedule.from_config(config)
    steps = Steps(scheduler, schedule, 20, "cpu")
    clean, noise, more = (torch.randn(2, 4, 8, 8) for _ in range(3))

    def predict(x, t, step):
        abar = 1 / (1 + torch.tensor(steps.sigma(step), dtype=torch.float64) ** 2)
        error = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        return (error if prediction_type == "epsilon" else abar.sqrt() * error - (1 - abar).sqrt() * clean).float()

    i1, i0 = steps.split(0.88, 0.94)
    warped, first = steps.run(steps.start(noise), 0, i0, predict, kept=i1)
    parted = steps.forward(warped, i0, i1, more)
    share = 1 if steps.exploding else (1 + steps.sigma(i1) ** 2) ** 0.5
    assert float((parted * share - clean).std()) == pytest.approx(steps.sigma(i1), rel=0.15)
    for x in (first, parted):
        assert close(steps.run(x, i1, len(steps), predict)[0], clean, 0.05)


@pytest.mark.slow
def test_guidance_of_one_leaves_the_negative_prompt_out(sd):
    made = [latents(sd, guidance_scale=1, negative_prompt=text) for text in ("", "a blue square")]
    assert torch.equal(*made)
    assert not torch.equal(latents(sd), latents(sd, negative_prompt="a blue square"))


def test_a_story_s_scenes_are_prompts_of_frames(sd):
    story = parse_story("0-2: a red circle\n2-4: a blue square\nnegative: grey", 4, 8)
    prompts = ["a red circle"] * 2 + ["a blue square"] * 2
    assert close(latents(sd, story, frames=None), latents(sd, prompts, frames=None, negative_prompt="grey"))


@pytest.mark.slow
@pytest.mark.parametrize("anchor", ["first + previous", "all", "shuffled groups"])
def test_other_anchors_change_the_frames(sd, anchor):
    assert not close(latents(sd, anchor=anchor)[1:], latents(sd)[1:], 1e-3)


@pytest.mark.slow
def test_smoothing_at_two_steps_brings_neighbours_together(sd):
    def roughness(x):
        return float((x[1:-1] - (x[:-2] + x[2:]) / 2).norm())

    assert roughness(latents(sd, frames=6, smooth_steps=[14, 15])) < roughness(latents(sd, frames=6))


def test_a_video_has_frames_as_pictures_and_reports_every_step(sd):
    steps = []
    video = sd("a red circle", progress=lambda done, total: steps.append((done, total)), **(QUICK | {"chunk": 3}))
    assert video.shape == (4, 64, 64, 3)
    assert 0 <= float(video.min()) <= float(video.max()) <= 1
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][0] == steps[-1][1]


def test_a_raising_progress_stops_it_and_the_next_run_is_the_same(sd):
    def stop(done, total):
        raise KeyboardInterrupt

    before = latents(sd)
    with pytest.raises(KeyboardInterrupt):
        sd("a red circle", progress=stop, **QUICK)
    assert torch.equal(latents(sd), before)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"width": 60}, "a multiple of 8 is wanted, 64"),
        ({"chunk": 1}, "chunk is 1"),
        ({"anchor": "last"}, "choose one of first"),
        ({"how": "cubic"}, "nearest, bilinear"),
        ({"scheduler": "euler-a"}, "draws noise of its own"),
        ({"scheduler": "nonsense"}, "choose one of ddim"),
        ({"steps": 4}, "take more steps"),
        ({"t0": 0.95}, "0 <= t0 < t1 <= 1"),
        ({"seed": -(2**70)}, "seed"),
        ({"masks": torch.zeros(3, 64, 64)}, "n is 1 or 4"),
        ({"prompt": ["a", "b"]}, "2 prompts for 4 frames"),
        ({"prompt": 5}, "prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_value_is_refused_in_one_sentence(sd, wrong, words):
    with pytest.raises(T2VError, match=words):
        sd(**{"prompt": "a", **QUICK, **wrong})


def test_hints_must_be_one_or_one_a_frame_and_exclude_a_motion(sd, folder):
    net = load_controlnet("canny", sd, folder / "sd")
    with pytest.raises(T2VError, match="2 pictures for a control of 4 frames"):
        sd("a", controls=[Control(net, torch.rand(2, 64, 64, 3))], **QUICK)
    with pytest.raises(T2VError, match="leave one of them out"):
        sd("a", controls=[Control(net, torch.rand(4, 64, 64, 3))], motion=Motion(), **QUICK)
    with pytest.raises(T2VError, match=r"pictures \(n, h, w, 3\)"):
        Control(net, torch.rand(64, 64, 3))
    assert sd.request("a", controls=[Control(net, torch.rand(7, 64, 64, 3))]).frames == 7


def test_a_controlnet_is_found_by_a_part_of_its_name_or_by_its_folder(sd, sdxl, folder):
    assert (
        load_controlnet("Canny", sd, folder / "sd").config
        == load_controlnet(str(folder / "sd-controlnet-canny"), sd, "anything").config
    )
    with pytest.raises(T2VError, match="No ControlNet 'depth' was found"):
        load_controlnet("depth", sd, folder / "sd")
    with pytest.raises(T2VError, match="holds no ControlNet"):
        load_controlnet(str(folder / "sd"), sd, folder / "sd")
    with pytest.raises(T2VError, match="is a ControlNet for another model"):
        load_controlnet("canny", sdxl, folder / "sdxl")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (None, "holds no model_index.json"),
        (
            {"_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]},
            "leave --zero-shot out",
        ),
        ({"_class_name": "FluxPipeline"}, "holds a FluxPipeline, which is neither"),
        ([], "neither Stable Diffusion"),
    ],
)
def test_a_folder_of_something_else_is_refused_in_one_sentence(tmp_path, index, words):
    if index is not None:
        (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(T2VError, match=words):
        load_zero_shot(tmp_path)


def test_a_file_and_a_missing_folder_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(T2VError, match="is a file"):
        load_zero_shot(tmp_path / "model.safetensors")
    with pytest.raises(T2VError, match="There is no folder"):
        load_zero_shot(tmp_path / "nothing")


def test_a_folder_that_lacks_a_part_is_refused_in_one_sentence(folder, tmp_path):
    for name in ("model_index.json", "scheduler", "tokenizer", "text_encoder", "vae"):
        (tmp_path / name).symlink_to(folder / "sd" / name)
    with pytest.raises(T2VError, match="cannot be loaded"):
        load_zero_shot(tmp_path)
