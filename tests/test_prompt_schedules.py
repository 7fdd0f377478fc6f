"""Prompt schedules of FizzNodes, Deforum and A1111 mean in a story what they mean there, or are refused in a sentence."""

import json
from itertools import pairwise

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.sampling.story import parse_story, with_negative

CAT_AND_DOG = [
    '"0": "a cat",\n"16": "a dog"',
    '"0" :"a cat",\n"16" :"a dog",\n',
    '{"0": "a cat", "16": "a dog"}',
    '{\n  "0": "a cat",\n  "16": "a dog",\n}\n',
    '"16": "a dog", "0": "a cat"',
    '"0": "a\n cat",  "16":\n"a dog"',
    "0: a cat\n16: a dog",
    "0 : a cat\n\n16：a dog\n",
    "16: a dog / 0: a cat",
    '0: "a cat",\n16: "a dog",',
    "0: 'a cat'\r16: 'a dog'\r",
    "\ufeff0: a cat\u202816: a dog",
]


def fizz_weights(keys, frames):
    """How FizzNodes shares each frame between the texts of two keys: (frames, keys)."""
    keys = sorted(keys)
    weights = torch.zeros(frames, len(keys))
    weights[: keys[0], 0] = 1
    weights[keys[-1] :, -1] = 1
    for i, (key, following) in enumerate(pairwise(keys)):
        for frame in range(key, min(following, frames)):
            later = (frame - key) / (following - key)
            weights[frame, i], weights[frame, i + 1] = 1 - later, later
    return weights


@pytest.mark.parametrize("text", CAT_AND_DOG)
def test_schedule_means_the_texts_of_its_frames_in_every_form(text):
    story = parse_story(text, 32, 8)
    assert [scene.text for scene in story.scenes] == ["a cat", "a dog"]
    assert torch.equal(story.blend(), fizz_weights([0, 16], 32))
    assert not story.negatives


@pytest.mark.parametrize(
    "keys", [[0], [5], [0, 1], [0, 32], [0, 31], [3, 4, 5, 20], [0, 8, 16, 24, 32], [30, 2, 17, 9], list(range(32))]
)
@pytest.mark.parametrize(
    "form", [json.dumps, lambda texts: "\n".join(f"{frame}: {text}" for frame, text in texts.items())]
)
def test_frames_are_shared_between_two_texts_as_fizznodes_does(keys, form):
    story = parse_story(form({str(key): f"text {key}" for key in keys}), 32, 8)
    assert [scene.text for scene in story.scenes] == [f"text {key}" for key in sorted(keys)]
    assert torch.allclose(story.blend(), fizz_weights(keys, 32), atol=1e-6)


@pytest.mark.parametrize(
    "text", ['"0": "a cat --neg blurry, dark", "16": "a dog"', "0: a cat --neg blurry, dark\n16: a dog"]
)
def test_text_after_neg_is_the_negative_prompt_of_its_frames(text):
    story = parse_story(text, 32, 8)
    assert [scene.text for scene in story.scenes] == ["a cat", "a dog"]
    contexts = story.encode(lambda texts: torch.eye(len(texts))[:, None], negative=True)
    shares = [scene.text for scene in story.negatives].index("blurry, dark") + 1
    assert torch.allclose(contexts.blend[:, shares], fizz_weights([0, 16], 32)[:, 0])


@pytest.mark.parametrize("text", CAT_AND_DOG)
def test_negative_prompt_of_a_node_holds_over_a_whole_schedule(text):
    story = parse_story(with_negative(text, "blurry: 1 / dark"), 32, 8)
    assert [scene.text for scene in story.scenes] == ["a cat", "a dog"]
    assert [(scene.text, scene.start, scene.end) for scene in story.negatives] == [("blurry: 1 dark", 0, 32)]


def test_lines_before_and_after_prompt_travel_belong_to_every_text():
    text = "1girl, best quality,\nsmiling\n0: closed mouth\n8: open mouth: wide\nin the snow\nnegative: blurry"
    story = parse_story(text, 16, 8)
    assert [scene.text for scene in story.scenes] == [
        "1girl, best quality, smiling, closed mouth, in the snow",
        "1girl, best quality, smiling, open mouth: wide, in the snow",
    ]
    assert [scene.text for scene in story.negatives] == ["blurry"]


def test_text_of_a_schedule_may_hold_weights_braces_and_slashes():
    texts = ["(a cat:1.2), {a|b} / <lora:x:1>", 'a "dog" \\ é 漢 12-14s: b']
    story = parse_story(json.dumps({"0": texts[0], "8": texts[1]}), 16, 8)
    assert [scene.text for scene in story.scenes] == texts


@pytest.mark.parametrize(
    "text",
    [
        '"0": "a (cat:`sin(t)`)", "16": "a dog"',
        "0: a (cat:`pw_a`)\n16: a dog",
        '"0": "a", "max_f/2": "b"',
        '"max_f - 1": "a"',
        '"(3*2)": "a"',
        '"0": "a" "16": "b"',
        '"0": "a',
        "{'0': 'a', '16': 'b'}",
        "“0”: “a”, “16”: “b”",
        "{0: 'a', 16: 'b'}",
        '"0": "a", "0": "b"',
        '"0": 1',
        '"0": {"1": "a"}',
        '"0": ' + "[" * 100_000,
        '{"prompt_map": {"0": "a"}}',
        '"0.5": "a"',
        '"-1": "a"',
        f'"{"9" * 50}": "a"',
        '"0": "a", "40": "b"',
        "0: a\n40: b",
        f"{'9' * 30}: a",
        "0: a\n0: b",
        "0: a\nb\n16: c",
        "a cat\n16: a dog",
        "0: a\n8-16f: b",
        "0-8f: a\n16: b",
        'a cat\n"0": "a",\n"16": "b"',
        "0s: a\n2s: b",
        "0, 16: a",
    ],
    ids=lambda text: text[:24],
)
def test_schedule_that_cannot_be_read_is_refused_with_a_form_that_can(text):
    with pytest.raises(T2VError) as refusal:
        parse_story(text, 32, 8)
    assert any(
        way in str(refusal.value)
        for way in ("0-2s", "make the clip longer", "give every frame one", "write its values")
    )
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "text", ['"Hello": a sign says', '"a cat" and "a dog"', "{a|b} cat", "2 cats: a portrait", "cats: 2"]
)
def test_prompt_with_quotes_braces_or_a_colon_is_no_schedule(text):
    assert [scene.text for scene in parse_story(text, 32, 8).scenes] == [text]


@pytest.mark.parametrize(
    "text",
    [
        "0: a cat, 16: a dog",
        "0: a cat | 16: a dog",
        "0:8 a cat\n8:16 a dog",
        "00:00 a cat / 00:02 a dog",
        "Frame 0: a cat\nFrame 16: a dog",
        "[0] a cat\n[16] a dog",
        "#0 a cat\n#16 a dog",
        "0 = a cat\n16 = a dog",
        "0-16 a cat\n16-32 a dog",
        "0.0 a cat\n0.5 a dog",
        "prompt_map:\n0: a cat\n16: a dog",
        '[{"frame": 0, "prompt": "a cat"}]',
        '/* travel */ "0": "a cat", "16": "a dog"',
        "[a cat:a dog:0.5]",
        "a [cat:dog:12] in the [snow]",
        "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7",
        "0: a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7",
    ],
)
def test_schedule_of_another_form_is_refused_and_not_taken_for_prompts(text):
    with pytest.raises(T2VError) as refusal:
        parse_story(text, 32, 8)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "2 cats\n3 dogs",
        "1. a cat\n2. a dog",
        "a [cat|dog] in [snow]",
        "0 people on a square",
        "a sign: [x:y]",
    ],
)
def test_prompts_with_numbers_and_brackets_are_prompts(text):
    assert [scene.text for scene in parse_story(text, 32, 8).scenes] == text.split("\n")


def test_a_negative_prompt_pasted_with_its_label_is_what_not_to_show():
    for text in ("a cat\nNegative prompt: blurry", "0: a cat\nNegative prompt: blurry"):
        story = parse_story(text, 32, 8)
        assert [scene.text for scene in story.scenes] == ["a cat"]
        assert [scene.text for scene in story.negatives] == ["blurry"]
