"""What a layout of the UNet's weights is: a name for each canonical one, and its shape there.

The canonical names are those of ``UNet3D(config).state_dict()``. Every layout is a pure renaming of them; a few tensors
have another number of dimensions of size one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ..errors import T2VError
from ..unet import UNet3D, UNetConfig
from .tensors import LazyDict, LazyTensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


class MissingKey(T2VError):
    """A tensor without which not even the shape of the network is known."""


@dataclass(frozen=True)
class Layout:
    """One way to name and shape the UNet's tensors."""

    name: str
    title: str
    rename: Callable[[str, UNetConfig], str]
    """Canonical name to the layout's."""
    reshape: Callable[[str, Shape], Shape]
    """Canonical name and shape to the layout's shape."""
    infer: Callable[[Shapes], dict]
    """The fields of a UNetConfig that the names and shapes tell."""

    @lru_cache(maxsize=16)  # noqa: B019 (layouts live as long as the module)
    def names(self, config: UNetConfig) -> dict[str, str]:
        """Canonical name -> the layout's name."""
        return {name: self.rename(name, config) for name in canonical_shapes(config)}

    @lru_cache(maxsize=16)  # noqa: B019
    def shapes(self, config: UNetConfig) -> dict[str, Shape]:
        """The layout's full manifest: its name -> its shape."""
        return {
            self.rename(name, config): self.reshape(name, shape) for name, shape in canonical_shapes(config).items()
        }

    def from_canonical(self, tensors: LazyDict, config: UNetConfig) -> LazyDict:
        """Canonical tensors under this layout's names, in its shapes."""
        return {
            self.rename(name, config): tensor.reshape(self.reshape(name, tensor.shape))
            for name, tensor in tensors.items()
        }

    def to_canonical(self, tensors: LazyDict, config: UNetConfig) -> LazyDict:
        """This layout's tensors under the canonical names and shapes; all must be there (see `compare`)."""
        shapes = canonical_shapes(config)
        return {name: tensors[theirs].reshape(shapes[name]) for name, theirs in self.names(config).items()}

    def compare(self, shapes: Shapes, config: UNetConfig) -> Difference:
        """What is missing, unexpected or misshapen among tensors of this layout."""
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
    """How a set of tensors differs from what a network wants."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[tuple[str, Shape, Shape]]

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
    """Name -> shape of every tensor of ``UNet3D(config)``."""
    return {name: tuple(tensor.shape) for name, tensor in UNet3D(config, device="meta").state_dict().items()}


def same_shape(found: Shape, wanted: Shape) -> bool:
    """Equal but for dimensions of size one, which layouts write or leave out."""
    if prod(found) != prod(wanted):
        return False
    return [n for n in found if n != 1] == [n for n in wanted if n != 1]


def shapes_of(tensors: Mapping[str, LazyTensor]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def size_of(shapes: Shapes, *places: tuple[str, int]) -> int:
    """The size that most of `places`, (name, dimension), agree on; so one damaged tensor does not mislead."""
    votes = Counter(
        shapes[name][dimension] for name, dimension in places if name in shapes and len(shapes[name]) > dimension
    )
    if not votes:
        raise MissingKey(f"missing: {places[0][0]}")
    return votes.most_common(1)[0][0]


def any_with(names: Iterable[str], *parts: str) -> bool:
    """Whether a name holds all `parts`."""
    return any(all(part in name for part in parts) for name in names)
