"""The training of the built-in model: its stages, the clips that they learn from, and the whole recipe."""

from dataclasses import replace

import pytest
import torch

import t2v_models
from t2v_models.errors import T2VError
from t2v_models.evaluation.stories import centres
from t2v_models.plots.losses import draw_curves, read_losses
from t2v_models.shapes.captions import describe, vocabulary
from t2v_models.shapes.world import DIRECTIONS, Item, Scene, Trajectory, World
from t2v_models.training.builtin import autoencoder, batches, decoder, phases, text_encoder, unet
from t2v_models.training.builtin.clips import ClipPool, poses
from t2v_models.training.builtin.recipe import Recipe, begin, train_builtin
from t2v_models.training.loop import Schedule, fit

PROMPT = "a red circle moves right"


@pytest.fixture(scope="module")
def pipeline():
    return t2v_models.load_pipeline("built-in")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    text_encoder.write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_word_of_the_world_is_one_token(tokenizer):
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word


def test_any_text_becomes_tokens_of_the_vocabulary(tokenizer):
    for prompt in ("", "zebra", "ÄÖÜ ß", "日本", "🙂", "a" * 500, "red," * 60, "1 2 3 !?"):
        ids = text_encoder.tokenize(tokenizer, [prompt])
        assert ids.shape == (1, 77)
        assert 0 <= ids.min() <= ids.max() < len(tokenizer)


def test_untrained_autoencoder_reconstructs_the_image():
    torch.manual_seed(0)
    assert autoencoder.psnr(autoencoder.build(), count=8) > 15


@pytest.mark.slow
def test_denoised_clips_keep_their_objects_in_place(pipeline, tmp_path):
    images, latents = decoder.denoised(pipeline, tmp_path, 4, 0, False)
    drawn, seen = images.movedim(1, -1) / 255, torch.cat(list(pipeline.decode(latents.transpose(0, 1))))

    def error(frames):
        return (frames - drawn).square().mean(dim=(1, 2, 3)).sqrt()

    own = torch.cat(list(pipeline.decode(pipeline.encode_video(drawn[None])[0])))
    assert (error(seen) < 0.2 * error(seen.roll(16, 0))).all(), "another clip is nearly as similar"
    assert error(own).mean() < error(seen).mean() < 0.0315  # 0.0334 before the decoder's training
    assert torch.equal(images, decoder.denoised(pipeline, tmp_path, 4, 0, False)[0])


@pytest.mark.parametrize("muon", [False, True])
def test_resumed_training_equals_uninterrupted_training(tmp_path, muon):
    def run(folder, *stops):
        for steps in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(48, 48)

            def loss(step, random, model=model):
                x = torch.randn(8, 48, generator=random)
                return (model(x) - x.flip(1)).square().mean()

            # the learning rate is constant below, so that it does not depend on the number of steps
            fit(model, loss, replace(Schedule(20, warmup=2, muon=muon), steps=steps), folder, progress=False)
        return model.weight.detach()

    constant = pytest.MonkeyPatch()
    with constant.context() as patch:
        patch.setattr(Schedule, "rate", lambda self, step: 1e-2)
        whole, resumed = run(tmp_path / "a", 20), run(tmp_path / "b", 7, 20)
    assert torch.equal(whole, resumed)
    assert len((tmp_path / "b" / "loss.csv").read_text().splitlines()) == 20


def test_losses_are_read_despite_a_partial_line_and_a_skipped_step(tmp_path):
    model = torch.nn.Linear(2, 2)

    def run(steps, values):
        def loss(step, random):
            return model(torch.ones(1, 2)).square().sum() * values.get(step, 1.0)

        fit(model, loss, Schedule(steps, warmup=1), tmp_path, progress=False)

    run(3, {})
    with open(tmp_path / "loss.csv", "a") as file:
        file.write("12")  # a full disk can leave such a line
    run(6, {4: float("nan")})
    losses = read_losses(tmp_path)
    assert [step for step, _ in losses] == [0, 1, 2, 3, 5]
    draw_curves({"a stage": losses}, tmp_path / "loss.png")


def test_timesteps_stay_below_1000_when_rounded_up(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, 1 - 2.0**-24))
    timesteps = batches.draw_timesteps(64, torch.Generator().manual_seed(0))
    assert timesteps.max() == 999


@pytest.mark.parametrize("muon", [False, True])
def test_state_of_other_optimisers_is_refused(tmp_path, muon):
    def train(muon, steps):
        model = torch.nn.Sequential(torch.nn.Linear(48, 48), torch.nn.Linear(48, 2))

        def loss(step, random):
            return model(torch.randn(8, 48, generator=random)).square().mean()

        fit(model, loss, Schedule(steps, warmup=1, muon=muon), tmp_path, progress=False)

    train(muon, 2)
    train(muon, 3)
    with pytest.raises(T2VError, match="not written by the"):
        train(not muon, 4)


def test_every_attribute_of_a_caption_has_a_class():
    scene = Scene((Item("red", "star", "up", "fast"),), "blue")
    named = [
        None if index == len(choices) else choices[index]
        for choices, index in zip(text_encoder.QUESTIONS, text_encoder.answers(scene), strict=True)
    ]
    assert named == ["red", "star", "up", "fast", None, None, None, None, "blue"]


@pytest.mark.slow
def test_text_encoder_learns_the_attributes_of_captions(tmp_path, tokenizer):
    encoder = text_encoder.train(tmp_path, tokenizer, Schedule(30, 3e-3, warmup=5, average=0.5), progress=False)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "loss.csv").read_text().splitlines()]
    assert losses[-1] < 0.75 * losses[0]
    assert not any(weight.requires_grad for weight in encoder.parameters()), "the UNet's training must not change it"


def test_every_weight_of_the_unet_has_a_gradient_in_the_first_step():
    torch.manual_seed(0)
    model = unet.build()
    context = torch.randn(2, 77, unet.UNET.context_dim)
    model(torch.randn(2, 4, 6, 8, 8), torch.tensor([300, 700]), context).square().mean().backward()
    without = [name for name, weight in model.named_parameters() if not weight.grad.abs().max() > 0]
    assert not without, "these never get a gradient"


def test_untrained_unet_depends_on_the_order_of_frames():
    torch.manual_seed(0)
    model = unet.build().eval()
    x, context = torch.randn(1, 4, 6, 8, 8), torch.randn(1, 77, 128)
    with torch.no_grad():
        forwards, backwards = (model(clip, torch.tensor([500]), context) for clip in (x, x.flip(2)))
    assert (forwards - backwards.flip(2)).abs().max() > 1e-3, "it could not learn directions"


@pytest.fixture(scope="module")
def quick_vae():
    """An untrained, tiny autoencoder, for tests that do not depend on the latents."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    return AutoencoderKL(block_out_channels=[4] * 4, norm_num_groups=2, mid_block_add_attention=False, **blocks)


def test_pool_draws_the_same_clips_when_made_again(tmp_path, quick_vae):
    def draw(folder):
        pool = ClipPool(quick_vae, [(1.0, World())], 3, folder, seed=1, clips=8)
        return pool.draw(1, 5, 6, torch.Generator().manual_seed(0))

    clips, again = draw(tmp_path / "a"), draw(tmp_path / "a")  # the second time from the files
    assert [describe(s) for s in clips.scenes] == [describe(s) for s in again.scenes]
    assert clips.latents.shape == (5, 4, 6, 8, 8)
    assert torch.allclose(clips.latents, again.latents, atol=4e-3)
    assert clips.poses.shape == (5, 6, 2, 5)
    assert torch.equal(clips.poses.nan_to_num(), again.poses.nan_to_num())


@pytest.mark.slow
@torch.no_grad()
def test_poses_of_the_pool_agree_with_its_latents(tmp_path, pipeline):
    pool = ClipPool(pipeline.vae, [(1.0, World())], 3, tmp_path, seed=2, clips=8)
    clips = pool.draw(1, 4, 16, torch.Generator().manual_seed(0))
    for latents, pose in zip(clips.latents, clips.poses, strict=True):
        seen = centres(torch.cat(list(pipeline.decode(latents))))
        assert (seen - (0.5 + 0.2 * pose[:, 0, :2])).norm(dim=-1).max() < 0.04
        assert pose[:, 1].isnan().all(), "there is no second object"


def test_pool_can_draw_fast_clips_alone(tmp_path, quick_vae):
    pool = ClipPool(quick_vae, [(1.0, World())], 3, tmp_path, seed=1, clips=20)
    scenes = pool.draw(1, 12, 16, torch.Generator().manual_seed(0), fast=1.0).scenes
    assert {item.speed for scene in scenes for item in scene.items} == {"fast"}
    scenes = pool.draw(1, 40, 16, torch.Generator().manual_seed(0)).scenes
    assert {item.speed for scene in scenes for item in scene.items} == {"slowly", "", "fast"}


@pytest.mark.slow
def test_lesson_shows_objects_in_the_direction_of_their_motion(tmp_path, quick_vae):
    pool = ClipPool(quick_vae, [(1.0, World())], 3, tmp_path, seed=1, clips=40)

    def advance(ahead: int) -> float:
        """Mean position along the direction of motion, in frame widths from the middle."""
        clips = pool.draw(1, 120, 8, torch.Generator().manual_seed(0), ahead=ahead)
        directions = torch.tensor([DIRECTIONS[scene.items[0].motion] for scene in clips.scenes])
        return float(0.2 * (clips.poses[:, :, 0, :2].mean(1) * directions).sum(-1).mean())

    assert advance(6) > advance(1) + 0.03
    begin = 0
    for phase in phases.PHASES:
        shares = [(begin + 0.01) / phases.STEPS, (phase.until - 0.01) / phases.STEPS]
        candidates = [phases.candidates(*phases.phase_at(share)) for share in shares]
        assert candidates == ([6, 1] if phase.lesson else [1, 1])
        begin = phase.until


@pytest.mark.slow
def test_lesson_shows_objects_near_their_final_size(tmp_path, quick_vae):
    pool = ClipPool(quick_vae, [(1.0, World(straight=0, other=1))], 3, tmp_path, seed=1, clips=60)

    def size(motion: str, ahead: int) -> float:
        """Mean size of the objects with this motion, in the unit of the poses."""
        clips = pool.draw(1, 120, 8, torch.Generator().manual_seed(0), fast=1.0, ahead=ahead)
        which = [scene.items[0].motion == motion for scene in clips.scenes]
        return float(clips.poses[which, :, 0, 2].mean())

    assert size("grows", 6) > size("grows", 1) + 0.5
    assert size("shrinks", 6) < size("shrinks", 1) - 0.5


def test_poses_describe_both_objects_and_leave_out_invisible_rotation():
    scene = Scene((Item("red", "circle", "right"), Item("blue", "square", "spins")))
    still = torch.full((3, 2), 0.5)
    circle = Trajectory(still, torch.full((3,), 0.2), torch.zeros(3))
    square = Trajectory(still + 0.2, torch.full((3,), 0.1), torch.ones(3))
    pose = poses(scene, [circle, square])
    assert torch.allclose(pose[:, 0, :3], torch.tensor([0.0, 0.0, 1.0]))
    assert pose[:, 0, 3:].isnan().all(), "a rotated circle looks the same"
    quarter = poses(scene, [circle, replace(square, angle=torch.ones(3) + torch.pi / 2)])
    assert torch.allclose(pose[:, 1], quarter[:, 1], atol=1e-5), "a square rotated by a quarter looks the same"
    error = unet.pose_error(pose.nan_to_num(5.0), pose)
    assert error == 0


def test_new_world_begins_with_new_chunks(tmp_path, quick_vae):
    pool = ClipPool(quick_vae, [(0.5, World()), (1.0, World(straight=0, pairs=1))], 10, tmp_path, seed=1, clips=4)
    for number, items in ((4, 1), (5, 2), (6, 2)):
        scenes = pool.draw(number, 20, 1, torch.Generator().manual_seed(0)).scenes
        assert {len(scene.items) for scene in scenes} == {items}


def test_learning_rate_rises_holds_and_falls():
    schedule = Schedule(100, 1e-3, warmup=10, hold=0.5)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:51]) == {1e-3}
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert 1e-5 <= rates[-1] < 2e-5


def test_training_with_another_seed_recipe_or_code_is_not_resumed(tmp_path):
    recipe = Recipe().scaled(0.0005)
    begin(tmp_path, recipe, seed=0)
    begin(tmp_path, recipe, seed=0)
    for other, seed in ((recipe, 1), (Recipe(), 0)):
        with pytest.raises(T2VError, match="--seed, --steps or --scale"):
            begin(tmp_path, other, seed)
    (tmp_path / "text").mkdir()
    note = tmp_path / "recipe.txt"
    for change in (lambda: note.write_text(note.read_text().replace("code ", "code 0")), note.unlink):
        change()
        with pytest.raises(T2VError, match="another version"):
            begin(tmp_path, recipe, seed=0)


def test_finish_starts_from_the_given_weights(tmp_path, quick_vae, tokenizer):
    model = unet.WithPoses(unet.build())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = quick_vae, text_encoder.build_text_encoder(len(tokenizer)), tokenizer
    still = Schedule(1, learning_rate=0.0, muon=True)
    options = {"phases": phases.FINISH, "size": 1, "chunk": 8, "progress": False}
    assert unet.train(tmp_path, *parts, still, model=model, **options) is model
    assert all(torch.allclose(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_whole_recipe_makes_a_model_that_loads(tmp_path):
    recipe = replace(Recipe().scaled(0.0005), clips=1)
    picture = train_builtin(tmp_path / "work", tmp_path / "model", recipe, progress=False)
    assert picture.stat().st_size > 1000
    video = t2v_models.load_pipeline(tmp_path / "model")(PROMPT, steps=2)
    assert video.frames.shape == (1, 16, 64, 64, 3)
    first = (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    train_builtin(tmp_path / "work2", tmp_path / "model2", recipe, progress=False)
    second = (tmp_path / "model2" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert first == second, "the same seed must make the same model"
