"""A camera that moves over a still picture."""

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.image.camera import CAMERAS, Camera, camera, camera_stills


def ramp(h=32, w=48):
    """A picture whose red is the place across and whose green is the place down, 0..1 from edge to edge."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack([x, y, 0.5 + 0 * x], -1)[None]


def middle(frames):
    """Where the middle of each view lies, (t, 2)."""
    h, w = frames.shape[2:4]
    return frames[0, :, h // 2 - 1 : h // 2 + 1, w // 2 - 1 : w // 2 + 1, :2].mean((1, 2))


def test_camera_that_does_not_move_repeats_the_picture():
    images = torch.rand(2, 16, 24, 3, generator=torch.Generator().manual_seed(0))
    stills = camera_stills(images, 5, camera("none"))
    assert torch.equal(stills, images[:, None].repeat(1, 5, 1, 1, 1))


@pytest.mark.parametrize("name", CAMERAS)
def test_no_view_leaves_the_picture(name):
    """Outside a ramp its mirror image would turn the ramp round; inside, each view is a ramp itself."""
    frames = camera_stills(ramp(), 7, camera(name))
    assert frames.shape == (1, 7, 32, 48, 3)
    for plane in (frames[0, :, 1:-1, 1:-1, 0], frames[0, :, 1:-1, 1:-1, 1]):
        for axis in (1, 2):
            assert plane.diff(n=2, dim=axis).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("name", "direction"), [("pan right", (1, 0)), ("pan left", (-1, 0)), ("pan up", (0, -1)), ("pan down", (0, 1))]
)
def test_pan_moves_evenly_to_its_side_by_half_a_view(name, direction):
    steps = middle(camera_stills(ramp(), 9, camera(name))).diff(dim=0)
    wanted = torch.tensor(direction) * 0.5 / 1.5 / 8  # views of two thirds of the picture
    assert torch.allclose(steps, wanted.expand_as(steps), atol=2e-3)


def test_zooming_in_begins_with_the_whole_picture_and_zooming_out_ends_with_it():
    picture = ramp()
    frames = camera_stills(picture, 6, camera("zoom in"))
    assert (frames[0, 0] - picture[0]).abs().max() < 1e-5
    spread = frames[0, :, 16, :, 0].amax(1) - frames[0, :, 16, :, 0].amin(1)
    assert float(spread[0] / spread[-1]) == pytest.approx(1.5, abs=0.02)
    out = camera_stills(picture, 6, camera("zoom out"))
    assert torch.allclose(out, frames.flip(1), atol=1e-4)


def test_roll_turns_the_camera_clockwise_so_that_things_turn_the_other_way():
    frames = camera_stills(ramp(48, 48), 3, camera("roll right"))
    across = frames[0, :, 24, :, 1].diff(dim=1).mean(1)  # of the place down, along a row
    assert abs(float(across[0])) < 1e-4
    assert across[1] > 1e-3
    assert across[2] > across[1]


def test_pictures_of_a_batch_are_moved_over_alike():
    images = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    move = Camera(pan=(0.3, -0.1), zoom=1.2, roll=5)
    together = camera_stills(images, 4, move)
    assert torch.equal(together[1:2], camera_stills(images[1:2], 4, move))


@pytest.mark.parametrize("zoom", [0, -1, float("inf"), float("nan")])
def test_zoom_that_is_not_positive_is_refused(zoom):
    with pytest.raises(T2VError, match="zoom"):
        camera_stills(ramp(), 4, Camera(zoom=zoom))


def test_camera_of_another_name_is_refused():
    with pytest.raises(T2VError, match="choose one of none, pan right"):
        camera("fly")
