"""The commands of ``python -m t2v_models``, one module each."""

COMMANDS = ("inspect", "convert", "generate", "evaluate", "train_builtin")
"""Modules of this package, in the order in which the help shows them."""
