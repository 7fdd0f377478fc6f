"""Which family a UNet is of, by its shape and by what else its checkpoint holds.

The shapes of a checkpoint's tensors give its UNet, and often its family. Where several families share one UNet, the first
of the table is taken, unless the checkpoint holds more (a noise schedule, a diffusers configuration), its published name
tells, or the caller names the family. Loaders of image-to-video models warn where none of these decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .families import FAMILIES, Family
from .unet import PRESETS, UNetConfig

_PUBLISHED_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("zeroscopev2xl",), "zeroscope-v2-xl"),
    (("zs2xl",), "zeroscope-v2-xl"),
    (("zeroscopev2576w",), "zeroscope-v2-576w"),
    (("zs2576w",), "zeroscope-v2-576w"),
    (("zeroscopev230x448x256",), "zeroscope-v2-30x448x256"),
    (("zeroscopev2dark30x448x256",), "zeroscope-v2-30x448x256"),
    (("zeroscopev1",), "zeroscope-v1"),
    (("potat1",), "potat1"),
    (("animov",), "animov"),
    (("show1sr2",), "show-1-sr2"),
    (("tooncrafter",), "tooncrafter-512"),
    (("dynamicrafter", "interp"), "dynamicrafter-512-interp"),
    (("dynamicrafter", "loop"), "dynamicrafter-512-loop"),
    (("dynamicrafter", "1024"), "dynamicrafter-1024"),
    (("dynamicrafter", "512"), "dynamicrafter-512"),
)
"""Words, without punctuation, of the names under which models are published whose tensors do not tell their families."""

_OLD_KEYS = {
    "prediction": "prediction_type",
    "schedule": "beta_schedule",
    "pace": "speed_words",
    "frame_levels": "frame_timesteps",
}
"""Keys of configurations that were saved before these fields had their present names."""


def family_called(*names: str) -> str | None:
    """The family that a file, a folder or a configuration names; None where it names none.

    Only for models that share their network with others: fine-tunes of ModelScope, which differ in default sizes, licence
    and notes, and DynamiCrafter 512 and its kin. All other families are recognised by their tensors.

    Args:
        names: the more telling ones first; the words of a published name may also be spread over all of them.
    """
    plain = ["".join(letter for letter in name.lower() if letter.isalnum()) for name in names]
    for name in (*plain, " ".join(plain)):
        for words, family in _PUBLISHED_NAMES:
            if all(word in name for word in words):
                return family
    return None


def family_for(config: UNetConfig, hints: Mapping[str, Any] | None = None) -> Family:
    """The family of a UNet of this shape; one named "custom" where none fits.

    Args:
        config: the UNet's configuration.
        hints: what else the checkpoint contains: "family" (a name of `FAMILIES`), "called" (a name that chooses among
            families of one network), and fields of `Family`, which override the table's: "scale_base",
            "prediction_type", "betas", "width", "height", "frames", "fps" …. Unknown names and values of a wrong type
            are ignored.
    """
    hints = _todays(hints)
    family = possible_families(config, hints)[0]
    return replace(family, **{name: value for name, value in hints.items() if _is_field(family, name, value)})


def possible_families(config: UNetConfig, hints: Mapping[str, Any] | None = None) -> list[Family]:
    """The families that a UNet may be of as far as shape and hints tell, see `family_for`; the first is taken."""
    hints = _todays(hints)
    named = FAMILIES.get(str(hints.get("family", "")))
    if named is not None:
        return [named]
    shape = replace(config, default_fps=UNetConfig.default_fps)
    fitting = [
        family
        for family in FAMILIES.values()
        if replace(PRESETS[family.unet], default_fps=UNetConfig.default_fps) == shape
    ]
    if not fitting:
        return [_custom(str(hints.get("family") or "custom"), config)]
    called = FAMILIES.get(str(hints.get("called", "")))
    if called in fitting and not _DECISIVE & _contradicted(called, hints):
        return [called]
    agreeing = [sum(getattr(family, key, None) == value for key, value in hints.items()) for family in fitting]
    return [family for family, count in zip(fitting, agreeing, strict=True) if count == max(agreeing)]


_DECISIVE = {"prediction_type", "zero_terminal_snr", "scale_base", "dual_decoder"}
"""Fields that a file's name does not overrule where the checkpoint itself tells them."""


def _todays(hints: Mapping[str, Any] | None) -> dict[str, Any]:
    """Hints under today's names of the fields, with tuples for JSON's lists."""
    return {_OLD_KEYS.get(name, name): _as_tuple(value) for name, value in (hints or {}).items()}


def _custom(name: str, config: UNetConfig) -> Family:
    """The family of a UNet that is none of the published ones, which takes images as the published ones do."""
    tokens = "i2vgen" if config.image_branches else "resampler" if config.image_attention else ""
    latents = "ramp" if config.image_branches else "repeat" if config.in_channels == 2 * config.out_channels else ""
    return Family(
        name,
        "A model with a shape of its own",
        "unknown: see its source",
        "",
        image=config.takes_image,
        image_latents=latents if config.takes_image else "",
        image_tokens=tokens,
    )


def _as_tuple(value: Any) -> Any:
    """A list, and the lists in it, as tuples; any other value as it is."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _contradicted(family: Family, hints: Mapping[str, Any]) -> set[str]:
    """The fields of a family for which the hints give another value."""
    return {name for name, value in hints.items() if getattr(family, name, value) != value}


def _is_field(family: Family, name: str, value: Any) -> bool:
    """Whether a hint is a field of a family, with a value of the field's type; configurations hold much else."""
    if name not in Family.__dataclass_fields__ or name in ("name", "unet"):
        return False
    if name in ("betas", "speed_words"):
        return _is_row(value, 2, str if name == "speed_words" else (int, float))
    if name == "latent_colours":
        return value is None or (_is_row(value, 5, tuple) and all(_is_row(row, 3, (int, float)) for row in value))
    if name == "fps_range":
        return value is None or _is_row(value, 2, (int, float))
    if name in ("scale_base", "fps_condition"):
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    wanted = type(getattr(family, name))
    if wanted in (int, float) and not isinstance(value, bool):
        return isinstance(value, int) if wanted is int else isinstance(value, (int, float))
    return isinstance(value, wanted)


def _is_row(value: Any, length: int, wanted: type | tuple[type, ...]) -> bool:
    """Whether a value is a tuple of so many items of a type."""
    return isinstance(value, tuple) and len(value) == length and all(isinstance(item, wanted) for item in value)
