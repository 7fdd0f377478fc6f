"""Layouts of a UNet's weights: a name and a shape for each canonical one. And small helpers for names and shapes.

The canonical names are those of ``UNet3D(config).state_dict()``. Every layout only renames them; a few tensors have more
or fewer dimensions of size one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from ..errors import AGAIN, T2VError
from ..unet import UNet3D, UNetConfig
from .tensors import LazyDict, LazyTensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Name -> shape of a set of tensors."""


MOST_BLOCKS, WIDEST = 12, 1 << 16
"""The most levels of a UNet, blocks of a level, and channels: published ones have 4, 3 and 2560."""


class MissingKey(T2VError):
    """A tensor is missing without which the configuration of the network cannot be inferred."""


@dataclass(frozen=True)
class Layout:
    """One way to name and shape the UNet's tensors."""

    name: str
    title: str
    """The name in messages."""
    rename: Callable[[str, UNetConfig], str]
    """(canonical name, configuration) -> name in this layout."""
    reshape: Callable[[str, Shape], Shape]
    """(canonical name, canonical shape) -> shape in this layout."""
    infer: Callable[[Shapes], dict[str, Any]]
    """Names and shapes in this layout -> the fields of a UNetConfig that follow from them; raises `MissingKey`."""

    @lru_cache(maxsize=16)  # noqa: B019 (layouts live as long as the module)
    def names(self, config: UNetConfig) -> dict[str, str]:
        """Map each canonical name to the name in this layout."""
        return {name: self.rename(name, config) for name in canonical_shapes(config)}

    @lru_cache(maxsize=16)  # noqa: B019
    def shapes(self, config: UNetConfig) -> dict[str, Shape]:
        """Map every name in this layout to its shape."""
        return {
            self.rename(name, config): self.reshape(name, shape) for name, shape in canonical_shapes(config).items()
        }

    def from_canonical(self, tensors: LazyDict, config: UNetConfig) -> LazyDict:
        """Rename and reshape canonical tensors to this layout."""
        return {
            self.rename(name, config): tensor.reshape(self.reshape(name, tensor.shape))
            for name, tensor in tensors.items()
        }

    def to_canonical(self, tensors: LazyDict, config: UNetConfig) -> LazyDict:
        """Rename and reshape tensors of this layout to the canonical ones; all must be there, which `compare` checks."""
        shapes = canonical_shapes(config)
        return {name: tensors[theirs].reshape(shapes[name]) for name, theirs in self.names(config).items()}

    def compare(self, shapes: Shapes, config: UNetConfig) -> Difference:
        """Compare names and shapes with those that this layout has for the configuration."""
        wanted = self.shapes(config)
        return Difference(
            missing=[name for name in wanted if name not in shapes],
            unexpected=[name for name in shapes if name not in wanted],
            misshapen=[
                (name, tuple(shapes[name]), shape)
                for name, shape in wanted.items()
                if name in shapes and not same_shape(shapes[name], shape)
            ],
        )


@dataclass(frozen=True)
class Difference:
    """How a set of tensors differs from those of a network; true where it does, and a text for messages."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[tuple[str, Shape, Shape]]
    """(name, found shape, wanted shape)."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = []
        for word, names in (("missing", self.missing), ("not known", self.unexpected)):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{word}: {', '.join(names[:3])}{more}")
        if self.misshapen:
            name, found, wanted = self.misshapen[0]
            more = f" and {len(self.misshapen) - 1} more" if len(self.misshapen) > 1 else ""
            parts.append(f"of another shape: {name} is {list(found)} where {list(wanted)} belongs{more}")
        return "; ".join(parts)


@lru_cache(maxsize=16)
def canonical_shapes(config: UNetConfig) -> dict[str, Shape]:
    """Map the name of every tensor of ``UNet3D(config)`` to its shape."""
    return {name: tuple(tensor.shape) for name, tensor in UNet3D(config, device="meta").state_dict().items()}


def same_shape(found: Shape, wanted: Shape) -> bool:
    """Whether two shapes are equal but for dimensions of size one, which some layouts leave out."""
    if prod(found) != prod(wanted):
        return False
    return [n for n in found if n != 1] == [n for n in wanted if n != 1]


def shapes_of(tensors: Mapping[str, LazyTensor]) -> dict[str, Shape]:
    """Map each tensor's name to its shape."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def size_of(shapes: Shapes, *places: tuple[str, int]) -> int:
    """Return the size that most of `places`, (name, dimension), have, so that one damaged tensor does not mislead.

    Raises:
        MissingKey: where none of the tensors is there.
    """
    votes = Counter(
        shapes[name][dimension] for name, dimension in places if name in shapes and len(shapes[name]) > dimension
    )
    if not votes:
        raise MissingKey(f"missing: {places[0][0]}")
    return votes.most_common(1)[0][0]


def any_with(names: Iterable[str], *parts: str) -> bool:
    """Whether one of the names contains all `parts`."""
    return any(all(part in name for part in parts) for name in names)


def count_numbered(names: Iterable[str], pattern: str) -> int:
    """Count numbered layers: the greatest number that `pattern` finds at the start of a name, and one; 0 without any."""
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)


def check_shapes(tensors: LazyDict, wanted: Callable[[], Shapes], part: str) -> None:
    """Check that every tensor of a part is there with its shape.

    Args:
        tensors: the part's, by name.
        wanted: computes the names and shapes; a KeyError of it is a missing tensor, too.
        part: what to call the part in an error, such as "model.ckpt: its VAE".

    Raises:
        T2VError: where one is missing or has another shape.
    """
    try:
        shapes = wanted()
    except (KeyError, ValueError, IndexError) as error:
        raise T2VError(f"{part} is incomplete ({error} is missing). {AGAIN}") from error
    for name, shape in shapes.items():
        found = tensors[name].shape if name in tensors else None
        if found != shape:
            what = "lacks" if found is None else f"has shape {list(found)}, not {list(shape)}, in"
            raise T2VError(f"{part} {what} {name}. {AGAIN}")
