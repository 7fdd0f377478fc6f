"""Captions of scenes: one plain form for evaluation, and many wordings for training."""

from __future__ import annotations

import torch

from .world import BACKGROUNDS, COLOURS, DIRECTIONS, MOTIONS, SHAPES, Item, Scene

NOUNS = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle",),
    "star": ("star",),
}
VERBS = ("moves", "moves", "goes", "slides", "travels", "is moving", "moving", "is sliding", "going")
DIRECTION_WORDS = {
    "right": ("right", "to the right", "rightwards"),
    "left": ("left", "to the left", "leftwards"),
    "up": ("up", "upwards", "to the top"),
    "down": ("down", "downwards", "to the bottom"),
}
OTHER_MOTIONS = {
    "bounces": ("bounces", "is bouncing", "bounces up and down", "bouncing", "jumps up and down"),
    "spins": ("spins", "is spinning", "rotates", "turns", "spins around"),
    "grows": ("grows", "gets bigger", "is growing", "becomes larger", "grows larger"),
    "shrinks": ("shrinks", "gets smaller", "is shrinking", "becomes smaller"),
    "still": ("stands still", "stays still", "is still", "rests", "does not move"),
}
ADVERBS = {"slowly": ("slowly",), "fast": ("fast", "quickly")}
SYNONYMS = {"purple": ("purple", "purple", "violet"), "gray": ("gray", "gray", "grey")}
BACKGROUND_PHRASES = (
    "on a {} background",
    "on a {} background",
    "on a {} background",
    "over a {} background",
    "on {}",
    "against a {} background",
)
OPENINGS = ("a video of {}", "there is {}", "a clip of {}", "{} in a video")


def describe(scene: Scene) -> str:
    """Return the plain caption, as in ``a red circle moves right slowly on a blue background``."""
    parts = []
    for item in scene.items:
        if item.motion in DIRECTIONS:
            direction = item.motion.replace("up ", "up and to the ").replace("down ", "down and to the ")
            action = f"moves {direction} {item.speed}".strip()
        else:
            action = OTHER_MOTIONS[item.motion][0]
        parts.append(f"{_article(item.colour)} {item.colour} {item.shape} {action}")
    text = " and ".join(parts)
    return text if scene.background == "black" else f"{text} on a {scene.background} background"


def paraphrase(scene: Scene, random: torch.Generator, *, vague: float = 0.1, noise: float = 0.04) -> str:
    """Return a random caption.

    Args:
        vague: share of objects whose caption omits the colour, the noun or the motion.
        noise: share of captions with a made-up word.
    """
    text = " and ".join(_sentence(item, random, vague) for item in scene.items)
    if scene.background != "black" or _chance(0.3, random):
        text += " " + _pick(BACKGROUND_PHRASES, random).format(_colour(scene.background, random))
    if _chance(0.1, random):
        text = _pick(OPENINGS, random).format(text)
    if _chance(noise, random):
        words = text.split()
        words.insert(_index(len(words) + 1, random), _nonsense(random))
        text = " ".join(words)
    return text + ("." if _chance(0.1, random) else "")


def describe_still(scene: Scene) -> str:
    """Return the plain caption of a picture of one object, as in ``a red circle on a blue background``."""
    item = scene.items[0]
    text = f"{_article(item.colour)} {item.colour} {item.shape}"
    return text if scene.background == "black" else f"{text} on a {scene.background} background"


def paraphrase_still(scene: Scene, random: torch.Generator, *, vague: float = 0.35) -> str:
    """Return a random caption of a picture of one object, sometimes with a motion, as in a caption of a video.

    Args:
        vague: share of captions without the colour, and of those with "shape" or "object" for a noun.
    """
    item = scene.items[0]
    colour = "" if _chance(vague, random) else _colour(item.colour, random)
    noun = _pick(("shape", "object"), random) if _chance(vague, random) else _pick(NOUNS[item.shape], random)
    article = _pick((_article(colour or noun),) * 3 + ("the", ""), random)
    text = f"{article} {colour} {noun} {_action(item, random) if _chance(0.2, random) else ''}"
    if scene.background != "black" or _chance(0.2, random):
        text += " " + _pick(BACKGROUND_PHRASES, random).format(_colour(scene.background, random))
    return " ".join(text.split()) + ("." if _chance(0.1, random) else "")


def _sentence(item: Item, random: torch.Generator, vague: float) -> str:
    colour = _colour(item.colour, random)
    noun = _pick(NOUNS[item.shape], random)
    action = _action(item, random)
    if _chance(vague, random):
        match _index(4, random):
            case 0:
                return f"a {noun} {action}"
            case 1:
                return f"{_pick(('a {} shape', 'something {}', 'a {} object'), random).format(colour)} {action}"
            case _:
                action = ""
    article = _pick((_article(colour), _article(colour), _article(colour), "the", ""), random)
    return " ".join(f"{article} {colour} {noun} {action}".split())


def _action(item: Item, random: torch.Generator) -> str:
    if item.motion not in DIRECTIONS:
        return _pick(OTHER_MOTIONS[item.motion], random)
    directions = [_pick(DIRECTION_WORDS[part], random) for part in item.motion.split()]
    direction = " and ".join(directions)
    if len(directions) == 2 and _chance(0.2, random):
        direction = f"diagonally {direction}"
    verb = _pick(VERBS, random)
    if not item.speed:
        return f"{verb} {direction}"
    adverb = _pick(ADVERBS[item.speed], random)
    orders = (f"{verb} {direction} {adverb}", f"{verb} {adverb} {direction}", f"{adverb} {verb} {direction}")
    return orders[_index(3 if adverb.endswith("ly") and not verb.startswith("is") else 2, random)]


def _colour(name: str, random: torch.Generator) -> str:
    return _pick(SYNONYMS.get(name, (name,)), random)


def _article(word: str) -> str:
    return "an" if word[0] in "aeio" else "a"


def _nonsense(random: torch.Generator) -> str:
    letters = torch.randint(26, (2 + _index(7, random),), generator=random).tolist()
    return "".join(chr(97 + letter) for letter in letters)


def _pick(choices: tuple[str, ...], random: torch.Generator) -> str:
    return choices[_index(len(choices), random)]


def _index(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random))


def _chance(probability: float, random: torch.Generator) -> bool:
    return float(torch.rand((), generator=random)) < probability


def vocabulary() -> list[str]:
    """Return every word of the captions, and some that a user may try, in alphabetical order."""
    texts: list[str] = [*COLOURS, *BACKGROUNDS, *SHAPES, *MOTIONS, *VERBS, *BACKGROUND_PHRASES, *OPENINGS]
    for table in (NOUNS, DIRECTION_WORDS, OTHER_MOTIONS, ADVERBS, SYNONYMS):
        for choices in table.values():
            texts += choices
    texts += [
        "a an the and shape object something diagonally then while with of to in from one two three",
        "small big large tiny",
    ]
    texts += [
        "pink brown dark light bright top bottom corner centre center edge bounce spin grow shrink move go slide travel"
    ]
    texts += [
        "circles balls discs squares boxes blocks triangles stars shapes objects rectangle ellipse diamond heart fades"
    ]
    return sorted({word for text in texts for word in text.replace("{}", " ").split()})
