"""T2VZeroShot with texts, ControlNets and pictures that change from frame to frame. Run inside a ComfyUI by in_host.py."""

import small_image_unets as small
import torch
import zero_shot_node as node
from zero_shot_node import differ

CLOSE = 1e-4
FIVE = [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]]
"""Shares of two texts in five frames."""


def hints(frames):
    return torch.rand(frames, 64, 64, 3, generator=torch.Generator().manual_seed(1))


def check_every_frame_has_its_own_text_of_a_story(host):
    positive, negative = small.texts()
    for model in (node.model_of(host), node.model_of(host, v_prediction=True), node.model_of(host, "sdxl")):
        one, other = (node.run(host, model, texts=(text, negative), frames=5) for text in (positive, negative))
        made = node.run(host, model, texts=(node.story(host, FIVE), negative), frames=5)
        assert differ(made[:2], one[:2]) < CLOSE, "the frames meet in the first one alone"
        assert all(differ(made[k], each[k]) > 1e-2 for k in (2, 3, 4) for each in (one, other))
        shares = torch.tensor(FIVE)
        batch = torch.einsum("f s, s n d -> f n d", shares, torch.cat([positive[0][0], negative[0][0]]))
        pooled = shares @ torch.cat([positive[0][1]["pooled_output"], negative[0][1]["pooled_output"]])
        batch = [[batch, {"pooled_output": pooled}]]
        assert differ(node.run(host, model, texts=(batch, negative), frames=5), made) < CLOSE
        for size in (2, 3):
            in_chunks = node.run(host, model, texts=(node.story(host, FIVE), negative), frames=5, chunk=size)
            assert differ(in_chunks, made) < CLOSE


def check_a_chunk_may_have_one_text(host):
    negative = small.texts()[1]
    steps = [FIVE[k] for k in (0, 1, 1, 3, 3)]
    wanted = node.run(host, texts=(node.story(host, steps), negative), frames=5)
    made = node.run(host, texts=(node.story(host, FIVE), negative), frames=5, chunk=3, story="per chunk")
    assert differ(made, wanted) < CLOSE
    assert differ(made, node.run(host, texts=(node.story(host, FIVE), negative), frames=5, chunk=3)) > 1e-2


def check_a_story_of_another_length_is_spread_over_the_video(host):
    negative = small.texts()[1]
    doubled = [row for row in FIVE for _ in range(2)]
    one, other = (node.run(host, texts=(node.story(host, each), negative), frames=5) for each in (FIVE, doubled))
    assert differ(one, other) < CLOSE


def check_a_story_of_one_text_is_that_text(host):
    positive, negative = small.texts()
    made = node.run(host, texts=(node.story(host, [[1.0, 0.0]] * 4), node.story(host, [[0.0, 1.0]] * 4)))
    assert differ(made, node.run(host, texts=(positive, negative))) < CLOSE


def check_frames_see_their_own_hints_of_a_controlnet_in_every_chunk(host):
    model, (positive, negative) = node.model_of(host), small.texts()
    control = small.controlnet()

    def made(pictures, **changes):
        texts = host.run("ControlNetApplyAdvanced", positive, negative, control, pictures, 1.0, 0.0, 1.0)
        return node.run(host, model, texts=texts, frames=5, **changes)

    pictures = hints(5)
    whole = made(pictures)
    for size in (2, 3):
        assert differ(made(pictures, chunk=size), whole) < 1e-5
    changed = pictures.clone()
    changed[3] = changed[0]
    other = made(changed, chunk=3)
    kept = [0, 1, 2, 4]
    assert differ(other[kept], whole[kept]) < 1e-5
    assert differ(other[3], whole[3]) > 1e-4
    assert differ(made(pictures[:2]), made(pictures[[0, 1, 0, 1, 0]])) < 1e-5


def check_both_texts_share_one_controlnet_in_every_chunk(host):
    control = small.controlnet()
    texts = host.run("ControlNetApplyAdvanced", *small.texts(), control, hints(5), 1.0, 0.0, 1.0)
    model, calls = node.counted(node.model_of(host))
    node.run(host, model, texts=texts, frames=5, chunk=3)
    assert max(calls) == 6, "three frames of both texts together"


def check_a_story_carries_the_pooled_embedding_of_each_frame(host):
    clip, stories = host.tiny()[1], host.module("nodes.host.stories")
    red, blue = (host.run("CLIPTextEncode", clip, text)[0] for text in ("a red circle", "a blue square"))
    told = host.run("T2VStory", clip, "0-50%: a red circle / 50%-100%: a blue square", 4, 8.0)[0]
    wired = host.run("T2VStory", clip, "0-50%: one / 50%-100%: two", 4, 8.0, scene_1=red, scene_2=blue)[0]
    for conditioning in (told, wired):
        ((text, extra),) = conditioning
        texts, pooled = stories.of_frames(text, extra, [0, 1, 2, 3], 4)
        for k, each in ((0, red), (1, red), (2, blue), (3, blue)):
            assert torch.allclose(texts[k], each[0][0][0], atol=1e-5)
            assert torch.allclose(pooled[k], each[0][1]["pooled_output"][0], atol=1e-5)
        assert torch.allclose(extra["pooled_output"], red[0][1]["pooled_output"], atol=1e-5)
