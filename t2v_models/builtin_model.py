"""The model that comes with this package: the name by which it is chosen, and its folder."""

from pathlib import Path

BUILT_IN = "built-in"
BUILT_IN_FOLDER = Path(__file__).parent / "builtin"
