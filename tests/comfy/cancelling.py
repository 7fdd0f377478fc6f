"""Progress, previews and the cancel button as in main.py, for the checks.

in_host.py imports this before the host has its place on the path.
"""

from __future__ import annotations

import contextlib
from unittest import mock


@contextlib.contextmanager
def hooked(hook):
    """Calls ``hook(value, preview)`` at every step that a progress bar reports, with previews and cancelling as in main.py."""
    import comfy.model_management as management
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    def step(value, total, preview=None, **_):
        hook(value, preview)
        management.throw_exception_if_processing_interrupted()

    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(step)
    try:
        with mock.patch.object(args, "preview_method", LatentPreviewMethod.Latent2RGB):
            yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before)


def cancelled(host, work, after=1):
    """The steps that are reported of a work that is cancelled after so many."""
    import comfy.model_management as management

    steps = []

    def cancel(value, preview):
        steps.append(value)
        if value == after:
            management.interrupt_current_processing(True)

    with hooked(cancel):
        host.demand_cancelled(work)
    return steps
