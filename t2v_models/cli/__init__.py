"""The commands of ``python -m t2v_models``, one module each."""

from importlib.util import find_spec

from ..errors import T2VError

COMMANDS = ("inspect", "convert", "generate", "dataset", "evaluate", "train_builtin")
"""Modules of this package, in the order in which the help shows them."""


def need_package(name: str, command: str) -> None:
    """Raise T2VError where a package of the library is left out, as evaluation and training are in the registry's copy."""
    if find_spec(f"{__package__.rpartition('.')[0]}.{name}") is None:
        raise T2VError(
            f"{command} comes with the pack's repository, and this copy is the registry's, without t2v_models/{name}: "
            f"clone the repository and run it there."
        )
