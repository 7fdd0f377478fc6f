"""The host's memory manager in the states that large models bring it to, for the checks.

in_host.py imports this before the host has its place on the path.
"""

from __future__ import annotations

import contextlib


def partly(management):
    """Loads one byte of a model at once: every layer is cast when it is used."""
    load = management.LoadedModel.model_load

    def little(self, lowvram_model_memory=0, *args, **kwargs):
        self.model_use_more_vram  # noqa: B018
        return load(self, 1, *args, **kwargs)

    return {(management.LoadedModel, "model_load"): little}


def without_memory(management):
    """A device that is no CPU and holds nothing."""
    state = management.VRAMState.NO_VRAM
    return {(management, "is_device_cpu"): lambda device: False, (management, "vram_state"): state}


@contextlib.contextmanager
def replaced(values):
    """Attributes of the host in another state, and models loaded afresh before and after."""
    import comfy.model_management as management

    management.unload_all_models()
    before = {key: getattr(*key) for key in values}
    try:
        for (owner, name), value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)
        management.unload_all_models()
