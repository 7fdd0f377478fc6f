"""The built-in model: its folder, and how well it follows its prompts."""

import json

import pytest
import torch

import t2v_models
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.evaluation.run import answers, summarise
from t2v_models.evaluation.scoring import questions
from t2v_models.shapes.captions import paraphrase
from t2v_models.training.builtin import autoencoder, latent_colours, text_encoder

PROMPT = "a red circle moves right"


@pytest.fixture(scope="module")
def pipeline():
    return t2v_models.load_pipeline("built-in")


def test_model_is_small_and_has_no_pickle():
    files = [path for path in BUILT_IN_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md"}
    assert "CC0" in (BUILT_IN_FOLDER / "README.md").read_text("utf-8")


def test_model_files_contain_no_paths_of_the_training():
    for path in BUILT_IN_FOLDER.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text("utf-8")), path


def test_model_loads_like_any_other(pipeline):
    info = t2v_models.inspect(BUILT_IN_FOLDER)
    assert info.family.name == "built-in"
    assert info.licence == "CC0-1.0"
    assert (pipeline.defaults.frames, pipeline.defaults.width, pipeline.defaults.height) == (16, 64, 64)
    assert not any(parameter.isnan().any() for parameter in pipeline.unet.parameters())


def test_configured_latent_colours_are_those_of_the_fit(pipeline):
    assert pipeline.family.latent_colours == tuple(map(tuple, latent_colours.fit(pipeline.vae)))


def test_video_equals_that_of_diffusers(pipeline):
    diffusers = pytest.importorskip("diffusers")
    noise = torch.randn(1, 4, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = diffusers.TextToVideoSDPipeline.from_pretrained(BUILT_IN_FOLDER, torch_dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 6, "guidance_scale": 4.0, "num_frames": 16, "height": 64, "width": 64}
    latents = theirs(PROMPT, latents=noise.clone(), output_type="latent", **call).frames
    frames = torch.as_tensor(theirs(PROMPT, latents=noise.clone(), output_type="np", **call).frames)
    ours = pipeline(PROMPT, seed=5, steps=6, guidance_scale=4.0)
    assert (ours.latents - latents).abs().max() < 1e-4
    assert (ours.frames - frames).abs().max() < 1 / 255


def test_tokenizer_files_are_those_that_the_code_writes(tmp_path):
    text_encoder.write_tokenizer(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_text("utf-8") == (BUILT_IN_FOLDER / "tokenizer" / name).read_text("utf-8")


def test_autoencoder_reconstructs_above_31_db(pipeline):
    assert autoencoder.psnr(pipeline.vae, count=32) > 31


def test_latents_have_unit_variance(pipeline):
    image = autoencoder.stills(64, torch.Generator().manual_seed(2), crop=False)
    latents = pipeline.encode_video(image.permute(0, 2, 3, 1)[None])
    assert 0.8 < latents.std() < 1.2


@pytest.fixture(scope="module")
def summary(pipeline):
    def generate(prompts, seed):
        return pipeline(prompts, seed=seed).frames

    asked = questions({"plain": 24, "held out": 8, "other": 40, "pairs": 64}, seed=11)
    return {s.group: s for s in summarise(answers(generate, asked, batch=8))}


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["background", "colour", "shape", "motion", "all"])
def test_videos_follow_their_prompts(summary, criterion):
    assert summary["plain"].right[criterion] >= 0.95


@pytest.mark.slow
def test_videos_follow_combinations_held_out_of_the_training(summary):
    assert summary["held out"].right["all"] >= 0.85


@pytest.mark.slow
def test_videos_show_other_motions(summary):
    assert summary["other"].right["all"] >= 0.95


@pytest.mark.slow
def test_videos_show_two_objects(summary):
    assert summary["pairs"].right["all"] >= 0.85


@pytest.mark.slow
def test_videos_follow_paraphrased_prompts(pipeline):
    asked = questions({"plain": 16}, seed=12)
    random = torch.Generator().manual_seed(0)
    paraphrases = {question.seed: paraphrase(question.scene, random, vague=0, noise=0) for question in asked}

    def generate(prompts, seed):
        others = [paraphrases[seed + number] for number in range(len(prompts))]
        assert others != prompts
        return pipeline(others, seed=seed).frames

    assert summarise(answers(generate, asked))[0].right["all"] >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 8, 24])
def test_clips_of_other_lengths_follow_their_prompts(pipeline, frames):
    asked = questions({"plain": 16}, seed=13)
    made = answers(lambda prompts, seed: pipeline(prompts, seed=seed, frames=frames).frames, asked)
    assert summarise(made)[0].right["all"] >= 0.8


@pytest.mark.slow
def test_guidance_does_not_lower_the_accuracy(pipeline, summary):
    asked = questions({"plain": 24}, seed=11)
    given = answers(lambda prompts, seed: pipeline(prompts, seed=seed, guidance_scale=1.0).frames, asked)
    assert summarise(given)[0].right["all"] <= summary["plain"].right["all"]
