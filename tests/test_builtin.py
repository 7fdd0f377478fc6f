"""The built-in model: its folder, its tokenizer, how it is trained, and how well it follows its prompts."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import t2v_models
from t2v_models.__main__ import main
from t2v_models.errors import T2VError
from t2v_models.evaluation.run import answers, summarise
from t2v_models.evaluation.scoring import questions
from t2v_models.evaluation.stories import centres
from t2v_models.loading import BUILT_IN
from t2v_models.training import autoencoder, decoder, denoiser, text
from t2v_models.training.captions import describe, paraphrase, vocabulary
from t2v_models.training.loop import Schedule, fit
from t2v_models.training.pool import Pool, poses
from t2v_models.training.recipe import Recipe, train_builtin
from t2v_models.training.world import DIRECTIONS, Item, Scene, World
from t2v_models.training.world import Path as Way

PROMPT = "a red circle moves right"


@pytest.fixture(scope="module")
def pipeline():
    return t2v_models.load_pipeline("built-in")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    text.write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_the_model_is_small_and_holds_no_pickle():
    files = [path for path in BUILT_IN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md"}
    assert "CC0" in (BUILT_IN / "README.md").read_text("utf-8")


def test_nothing_about_its_making_is_left_in_its_files():
    for path in BUILT_IN.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text("utf-8")), path


def test_it_loads_as_any_other_model(pipeline):
    info = t2v_models.inspect(BUILT_IN)
    assert info.family.name == "built-in"
    assert info.licence == "CC0-1.0"
    assert (pipeline.defaults.frames, pipeline.defaults.width, pipeline.defaults.height) == (16, 64, 64)
    assert not any(parameter.isnan().any() for parameter in pipeline.unet.parameters())


def test_diffusers_makes_the_same_video(pipeline):
    diffusers = pytest.importorskip("diffusers")
    noise = torch.randn(1, 4, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = diffusers.TextToVideoSDPipeline.from_pretrained(BUILT_IN, torch_dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 6, "guidance_scale": 4.0, "num_frames": 16, "height": 64, "width": 64}
    latents = theirs(PROMPT, latents=noise.clone(), output_type="latent", **call).frames
    frames = torch.as_tensor(theirs(PROMPT, latents=noise.clone(), output_type="np", **call).frames)
    ours = pipeline(PROMPT, seed=5, steps=6, guidance_scale=4.0)
    assert (ours.latents - latents).abs().max() < 1e-4
    assert (ours.frames - frames).abs().max() < 1 / 255


def test_every_word_of_the_world_is_one_token(tokenizer):
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word


def test_unknown_words_letters_and_scripts_become_tokens_of_the_vocabulary(tokenizer):
    for prompt in ("", "zebra", "ÄÖÜ ß", "日本", "🙂", "a" * 500, "red," * 60, "1 2 3 !?"):
        ids = denoiser.tokenize(tokenizer, [prompt])
        assert ids.shape == (1, 77)
        assert 0 <= ids.min() <= ids.max() < len(tokenizer)


def test_the_tokenizer_in_the_folder_is_the_one_that_the_code_writes(tmp_path):
    text.write_tokenizer(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_text("utf-8") == (BUILT_IN / "tokenizer" / name).read_text("utf-8")


def test_the_autoencoder_keeps_edges_and_colours(pipeline):
    assert autoencoder.psnr(pipeline.vae, count=32) > 31


@pytest.mark.slow
def test_what_the_decoder_learns_from_lies_where_it_was_drawn(pipeline, tmp_path):
    images, latents = decoder.denoised(pipeline, tmp_path, 4, 0, False)
    drawn, seen = images.movedim(1, -1) / 255, torch.cat(list(pipeline.decode(latents.transpose(0, 1))))

    def error(frames):
        return (frames - drawn).square().mean(dim=(1, 2, 3)).sqrt()

    own = torch.cat(list(pipeline.decode(pipeline.encode_video(drawn[None])[0])))
    assert (error(seen) < 0.2 * error(seen.roll(16, 0))).all(), "another clip is nearly as near"
    assert error(own).mean() < error(seen).mean() < 0.028  # 0.030 before the decoder had learned it
    assert torch.equal(images, decoder.denoised(pipeline, tmp_path, 4, 0, False)[0])


def test_latents_have_unit_variance(pipeline):
    image = autoencoder.stills(64, torch.Generator().manual_seed(2), crop=False)
    latents = pipeline.encode_video(image.permute(0, 2, 3, 1)[None])
    assert 0.8 < latents.std() < 1.2


def test_an_untrained_autoencoder_already_keeps_the_picture():
    torch.manual_seed(0)
    assert autoencoder.psnr(autoencoder.build(), count=8) > 15


@pytest.mark.parametrize("muon", [False, True])
def test_a_resumed_training_equals_one_without_a_break(tmp_path, muon):
    def run(folder, *stops):
        for steps in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(48, 48)

            def loss(step, random, model=model):
                x = torch.randn(8, 48, generator=random)
                return (model(x) - x.flip(1)).square().mean()

            # the rate depends on the length of the whole training, so only the end of the loop differs
            fit(model, loss, replace(Schedule(20, warmup=2, muon=muon), steps=steps), folder, progress=False)
        return model.weight.detach()

    constant = pytest.MonkeyPatch()
    with constant.context() as patch:
        patch.setattr(Schedule, "rate", lambda self, step: 1e-2)
        whole, broken = run(tmp_path / "a", 20), run(tmp_path / "b", 7, 20)
    assert torch.equal(whole, broken)
    assert len((tmp_path / "b" / "loss.csv").read_text().splitlines()) == 20


@pytest.mark.parametrize("muon", [False, True])
def test_a_state_of_other_optimisers_is_refused(tmp_path, muon):
    def train(muon, steps):
        model = torch.nn.Sequential(torch.nn.Linear(48, 48), torch.nn.Linear(48, 2))

        def loss(step, random):
            return model(torch.randn(8, 48, generator=random)).square().mean()

        fit(model, loss, Schedule(steps, warmup=1, muon=muon), tmp_path, progress=False)

    train(muon, 2)
    train(muon, 3)
    with pytest.raises(T2VError, match="not written by the"):
        train(not muon, 4)


def test_a_caption_has_an_answer_to_every_question():
    scene = Scene((Item("red", "star", "up", "fast"),), "blue")
    named = [
        None if index == len(known) else known[index]
        for known, index in zip(text.QUESTIONS, text.answers(scene), strict=True)
    ]
    assert named == ["red", "star", "up", "fast", None, None, None, None, "blue"]


@pytest.mark.slow
def test_the_text_encoder_learns_what_captions_say(tmp_path, tokenizer):
    encoder = text.train(tmp_path, tokenizer, Schedule(30, 3e-3, warmup=5, average=0.5), progress=False)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "loss.csv").read_text().splitlines()]
    assert losses[-1] < 0.75 * losses[0]
    assert not any(weight.requires_grad for weight in encoder.parameters()), "the denoiser must not change it"


def test_every_weight_of_the_denoiser_learns_from_the_first_step():
    torch.manual_seed(0)
    unet = denoiser.build()
    context = torch.randn(2, 77, denoiser.UNET.context_dim)
    unet(torch.randn(2, 4, 6, 8, 8), torch.tensor([300, 700]), context).square().mean().backward()
    still = [name for name, weight in unet.named_parameters() if not weight.grad.abs().max() > 0]
    assert not still, "these never get a gradient"


def test_an_untrained_denoiser_tells_the_order_of_frames():
    torch.manual_seed(0)
    unet = denoiser.build().eval()
    x, context = torch.randn(1, 4, 6, 8, 8), torch.randn(1, 77, 128)
    with torch.no_grad():
        forwards, backwards = (unet(clip, torch.tensor([500]), context) for clip in (x, x.flip(2)))
    assert (forwards - backwards.flip(2)).abs().max() > 1e-3, "direction could not be learned"


@pytest.fixture(scope="module")
def quick_vae():
    """Untrained and tiny, for what does not look at the latents."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    return AutoencoderKL(block_out_channels=[4] * 4, norm_num_groups=2, mid_block_add_attention=False, **blocks)


def test_the_pool_is_the_same_when_made_again(tmp_path, quick_vae):
    def draw(folder):
        pool = Pool(quick_vae, [(1.0, World())], 3, folder, seed=1, clips=8)
        return pool.draw(1, 5, 6, torch.Generator().manual_seed(0))

    clips, again = draw(tmp_path / "a"), draw(tmp_path / "a")  # the second time from the files
    assert [describe(s) for s in clips.scenes] == [describe(s) for s in again.scenes]
    assert clips.latents.shape == (5, 4, 6, 8, 8)
    assert torch.allclose(clips.latents, again.latents, atol=4e-3)
    assert clips.poses.shape == (5, 6, 2, 5)
    assert torch.equal(clips.poses.nan_to_num(), again.poses.nan_to_num())


@pytest.mark.slow
@torch.no_grad()
def test_the_pool_knows_where_its_objects_are(tmp_path, pipeline):
    pool = Pool(pipeline.vae, [(1.0, World())], 3, tmp_path, seed=2, clips=8)
    clips = pool.draw(1, 4, 16, torch.Generator().manual_seed(0))
    for latents, pose in zip(clips.latents, clips.poses, strict=True):
        seen = centres(torch.cat(list(pipeline.decode(latents))))
        assert (seen - (0.5 + 0.2 * pose[:, 0, :2])).norm(dim=-1).max() < 0.04
        assert pose[:, 1].isnan().all(), "there is no second object"


def test_fast_clips_can_be_drawn_alone(tmp_path, quick_vae):
    pool = Pool(quick_vae, [(1.0, World())], 3, tmp_path, seed=1, clips=20)
    scenes = pool.draw(1, 12, 16, torch.Generator().manual_seed(0), fast=1.0).scenes
    assert {item.speed for scene in scenes for item in scene.items} == {"fast"}
    scenes = pool.draw(1, 40, 16, torch.Generator().manual_seed(0)).scenes
    assert {item.speed for scene in scenes for item in scene.items} == {"slowly", "", "fast"}


def test_the_lesson_in_directions_shows_objects_where_they_go(tmp_path, quick_vae):
    pool = Pool(quick_vae, [(1.0, World())], 3, tmp_path, seed=1, clips=40)

    def advance(ahead: int) -> float:
        """Mean place along the direction of motion, in frame widths from the middle."""
        clips = pool.draw(1, 120, 8, torch.Generator().manual_seed(0), ahead=ahead)
        ways = torch.tensor([DIRECTIONS[scene.items[0].motion] for scene in clips.scenes])
        return float(0.2 * (clips.poses[:, :, 0, :2].mean(1) * ways).sum(-1).mean())

    assert advance(6) > advance(1) + 0.03
    begin = 0
    for now in denoiser.PHASES:
        shares = [(begin + 0.01) / denoiser.STEPS, (now.until - 0.01) / denoiser.STEPS]
        taught = [denoiser.ahead(*denoiser.phase(share)) for share in shares]
        assert taught == ([6, 1] if now.lesson else [1, 1])
        begin = now.until


def test_the_lesson_in_changes_of_size_shows_objects_as_large_as_they_become(tmp_path, quick_vae):
    pool = Pool(quick_vae, [(1.0, World(straight=0, other=1))], 3, tmp_path, seed=1, clips=60)

    def size(motion: str, ahead: int) -> float:
        """Mean size of the objects that do so, as `poses` have it."""
        clips = pool.draw(1, 120, 8, torch.Generator().manual_seed(0), fast=1.0, ahead=ahead)
        which = [scene.items[0].motion == motion for scene in clips.scenes]
        return float(clips.poses[which, :, 0, 2].mean())

    assert size("grows", 6) > size("grows", 1) + 0.5
    assert size("shrinks", 6) < size("shrinks", 1) - 0.5


def test_poses_say_how_both_objects_lie_and_nothing_about_what_cannot_be_seen():
    scene = Scene((Item("red", "circle", "right"), Item("blue", "square", "spins")))
    still = torch.full((3, 2), 0.5)
    ways = [Way(still, torch.full((3,), 0.2), torch.zeros(3)), Way(still + 0.2, torch.full((3,), 0.1), torch.ones(3))]
    pose = poses(scene, ways)
    assert torch.allclose(pose[:, 0, :3], torch.tensor([0.0, 0.0, 1.0]))
    assert pose[:, 0, 3:].isnan().all(), "a turned circle looks the same"
    quarter = poses(scene, [ways[0], replace(ways[1], angle=torch.ones(3) + torch.pi / 2)])
    assert torch.allclose(pose[:, 1], quarter[:, 1], atol=1e-5), "a square turned by a quarter looks the same"
    error = denoiser.pose_error(pose.nan_to_num(5.0), pose)
    assert error == 0


def test_a_new_world_begins_with_chunks_of_its_own(tmp_path, quick_vae):
    pool = Pool(quick_vae, [(0.5, World()), (1.0, World(straight=0, pairs=1))], 10, tmp_path, seed=1, clips=4)
    for number, items in ((4, 1), (5, 2), (6, 2)):
        scenes = pool.draw(number, 20, 1, torch.Generator().manual_seed(0)).scenes
        assert {len(scene.items) for scene in scenes} == {items}


def test_the_rate_rises_holds_and_falls():
    schedule = Schedule(100, 1e-3, warmup=10, hold=0.5)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:51]) == {1e-3}
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert 1e-5 <= rates[-1] < 2e-5


@pytest.mark.slow
def test_the_whole_recipe_runs_and_makes_a_model_that_loads(tmp_path):
    recipe = replace(Recipe().scaled(0.0005), clips=1)
    picture = train_builtin(tmp_path / "work", tmp_path / "model", recipe, progress=False)
    assert picture.stat().st_size > 1000
    video = t2v_models.load_pipeline(tmp_path / "model")(PROMPT, steps=2)
    assert video.frames.shape == (1, 16, 64, 64, 3)
    first = (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    train_builtin(tmp_path / "work2", tmp_path / "model2", recipe, progress=False)
    second = (tmp_path / "model2" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert first == second, "the same seed must make the same model"


def test_evaluate_checks_its_own_analysis_and_draws_its_pictures(tmp_path, capsys):
    assert main(["evaluate", "--truth", "--plain", "4", "--pairs", "2", "--output", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "plain" in table
    assert "100.0" in table
    for name in ("results.csv", "sheet.png", "plot.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--plain", "-1"],
        ["evaluate", "--plain", "0"],
        ["evaluate", "--plain", "1", "--jobs", "0"],
        ["evaluate", "--plain", "1", "--model", "nowhere"],
        ["evaluate", "--plain", "1", "--scheduler", "nonsense"],
        ["evaluate", "--plain", "1", "--output", "README.md"],
        ["train-builtin", "--threads", "0"],
        ["train-builtin", "--scale", "2"],
        ["train-builtin", "--output", "README.md"],
        ["train-builtin", "--device", "nowhere"],
        ["evaluate", "--plain", "1", "--device", "nowhere"],
    ],
)
def test_wrong_input_gets_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("a file")
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error
    assert "\n" not in error


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path, capsys):
    for jobs in "12":
        asked = ["--plain", "2", "--pairs", "2", "--unguided", "2", "--batch", "2", "--steps", "4"]
        assert main(["evaluate", *asked, "--jobs", jobs, "--output", str(tmp_path / jobs)]) == 0
    one, two = (list(csv.reader((tmp_path / jobs / "results.csv").open())) for jobs in "12")
    assert len(one) == 7
    assert [row[:3] for row in one] == [row[:3] for row in two]
    assert [row[3:9] for row in one] == [row[3:9] for row in two]


@pytest.fixture(scope="module")
def summary(pipeline):
    def generate(prompts, seed):
        return pipeline(prompts, seed=seed).frames

    asked = questions({"plain": 24, "held out": 8, "other": 40, "pairs": 32}, seed=11)
    return {s.group: s for s in summarise(answers(generate, asked, batch=8))}


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["background", "colour", "shape", "motion", "all"])
def test_it_follows_its_prompts(summary, criterion):
    assert summary["plain"].right[criterion] >= 0.95


@pytest.mark.slow
def test_it_follows_combinations_that_it_was_never_trained_on(summary):
    assert summary["held out"].right["all"] >= 0.85


@pytest.mark.slow
def test_it_bounces_grows_shrinks_and_goes_diagonally(summary):
    assert summary["other"].right["all"] >= 0.95


@pytest.mark.slow
def test_it_draws_two_objects(summary):
    assert summary["pairs"].right["all"] >= 0.85


@pytest.mark.slow
def test_other_words_mean_the_same(pipeline):
    asked = questions({"plain": 16}, seed=12)
    random = torch.Generator().manual_seed(0)
    words = {question.seed: paraphrase(question.scene, random, vague=0, noise=0) for question in asked}

    def generate(prompts, seed):
        told = [words[seed + number] for number in range(len(prompts))]
        assert told != prompts
        return pipeline(told, seed=seed).frames

    assert summarise(answers(generate, asked))[0].right["all"] >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 8, 24])
def test_clips_of_other_lengths_follow_their_prompts(pipeline, frames):
    asked = questions({"plain": 16}, seed=13)
    made = answers(lambda prompts, seed: pipeline(prompts, seed=seed, frames=frames).frames, asked)
    assert summarise(made)[0].right["all"] >= 0.8


@pytest.mark.slow
def test_without_guidance_it_follows_them_less_or_equally_well(pipeline, summary):
    asked = questions({"plain": 24}, seed=11)
    given = answers(lambda prompts, seed: pipeline(prompts, seed=seed, guidance_scale=1.0).frames, asked)
    assert summarise(given)[0].right["all"] <= summary["plain"].right["all"]
