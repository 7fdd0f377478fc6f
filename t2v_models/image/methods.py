"""The ways in which a model that was made for texts alone follows a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..arguments import real_number, whole_number
from ..errors import T2VError
from ..sampling.frame_init import CUTOFF
from ..sampling.repeat_and_slide import RESAMPLE
from .camera import CAMERAS, Camera, camera

if TYPE_CHECKING:
    from ..families import Family

AUTO, FRAME_INIT, SLIDE, HOLD = "auto", "frame-init", "repeat-and-slide", "hold"

METHODS = {
    FRAME_INIT: "the noise holds the picture's large shapes; costs nothing, and keeps no frame",
    SLIDE: "the picture is repeated, and frame after frame follows; keeps the first frame, and takes many times as long",
    HOLD: "the first frame stays, and the last where one is given; exact, and smooth where a model takes frame timesteps",
}


@dataclass(frozen=True)
class ImageMethod:
    """A way to follow a picture, with its settings; a setting of another way has no effect."""

    name: str = AUTO
    """A key of `METHODS`; "auto" is "hold" for a model that takes a timestep for every frame, and where the video ends with a
    picture; it is "frame-init" for all others."""
    camera: Camera = CAMERAS["none"]
    """For "frame-init": how the camera moves over the picture."""
    timestep: int | None = None
    """For "frame-init": see `sampling.frame_init`; a lower one leaves more of the picture."""
    cutoff: float = CUTOFF
    """For "frame-init": see `sampling.frame_init`; a higher one leaves more of the picture."""
    known: int | None = None
    """For "repeat-and-slide": known frames of each clip; all but one where None, as in TI2V-Zero."""
    resample: int = RESAMPLE
    """Rounds per step in which new frames come to agree with known ones; none where the model takes frame timesteps."""

    @classmethod
    def checked(cls, value: str | ImageMethod, family: Family, *, first: bool, last: bool) -> ImageMethod:
        """A method by its name, or with settings, for a model; "auto" is resolved.

        Args:
            family: the model's.
            first, last: which pictures are given.

        Raises:
            T2VError: for a method that does not exist, that does not take these pictures, or whose settings are wrong.
        """
        method = value if isinstance(value, cls) else cls(_name(value))
        if method.name == AUTO:
            holds = family.frame_timesteps or last
            method = replace(method, name=HOLD if holds else FRAME_INIT)
        _name(method.name)
        if method.name != HOLD and (last or not first):
            raise T2VError(
                f"An end image is given to the method {method.name!r}, which takes a first one: choose {HOLD!r}."
            )
        if not 0 <= real_number(method.cutoff, "cutoff") <= 1:
            raise T2VError(f"cutoff is {method.cutoff:g}: a number from 0 to 1 is wanted.")
        if method.timestep is not None and not 0 <= whole_number(method.timestep, "timestep") < 1000:
            raise T2VError(f"timestep is {method.timestep}: a whole number from 0 to 999 is wanted.")
        if not 0 <= whole_number(method.resample, "resample") <= 100:
            raise T2VError(f"resample is {method.resample}: a whole number from 0 to 100 is wanted.")
        return method


def _name(value: Any) -> str:
    if value not in (AUTO, *METHODS):
        raise T2VError(f"image_method is {value!r}: choose one of {', '.join((AUTO, *METHODS))}.")
    return str(value)


def with_camera(method: str, move: str) -> ImageMethod:
    """A method whose camera makes the move of that name; T2VError for a camera in a method that has none."""
    if camera(move).still:
        return ImageMethod(method)
    if method not in (AUTO, FRAME_INIT):
        raise T2VError(f"A camera is given to the method {method!r}: only {FRAME_INIT!r} has one.")
    return ImageMethod(FRAME_INIT, camera(move))
