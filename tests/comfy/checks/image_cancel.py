"""Models that take pictures while they run: cancel, previews and little memory. Run inside a ComfyUI by in_host.py."""

import image_models as small
import torch
from cancelling import cancelled, hooked
from low_memory import partly, replaced, without_memory

FAMILIES = ("dynamicrafter-512", "videocrafter1-i2v", "i2vgen-xl")


def animate(host, family, name="first", **options):
    """MODEL, positive, negative, LATENT of a family for a picture of that name."""
    if family != "i2vgen-xl":
        texts = zip(("positive", "negative"), small.texts(small.references().image_runs.NETWORKS[family]), strict=True)
        return small.animate(host, family, small.picture(name), **dict(texts), **options)
    if family not in host.cache:
        host.cache[family] = host.run("T2VModelLoader", "i2vgen", "default")
    model, clip, vae, clip_vision = host.cache[family]
    parts = {"model": model, "vae": vae, "clip_vision": clip_vision}
    texts = dict(zip(("positive", "negative"), host.conds(clip, "a red circle", ""), strict=True))
    return small.animate(host, image=small.picture(name), **parts, **texts, **options)


def check_a_cancel_is_obeyed_within_a_step_and_the_next_run_is_as_ever(host):
    for family in FAMILIES:
        for sample in (small.sample, small.ksample):
            wanted = sample(host, animate(host, family, "last"))
            steps = cancelled(
                host, lambda f=family, s=sample: s(host, animate(host, f, image_cfg=3.0), steps=20), after=2
            )
            assert steps[-1] <= 3, (family, steps)
            assert torch.equal(sample(host, animate(host, family, "last")), wanted), family
            assert small.differ(sample(host, animate(host, family)), wanted) > 1e-3, family


def check_a_cancel_in_a_later_clip_of_a_chain_leaves_the_next_chain_right(host):
    def chain(*names):
        return small.between(host, [small.picture(name) for name in names])["samples"]

    wanted = chain("last", "first")
    assert cancelled(host, lambda: chain("first", "last", "third"), after=3)[-1] == 3
    assert torch.equal(chain("last", "first"), wanted)


def check_every_step_shows_a_preview_of_the_clip(host):
    for family in FAMILIES:
        for sample, size in ((small.sample, (512, 256)), (small.ksample, None)):
            shown = []
            with hooked(lambda value, preview, shown=shown: shown.append((value, preview))):
                sample(host, animate(host, family, image_cfg=3.0), steps=3)
            assert [value for value, _ in shown] == [1, 2, 3], (family, shown)
            assert all(preview is not None for _, preview in shown), family
            assert size is None or all(preview[1].size == size for _, preview in shown), shown[0][1][1].size


def check_with_little_memory_each_model_makes_the_same_and_can_be_cancelled(host):
    import comfy.model_management as management

    for family in FAMILIES:
        full = small.sample(host, animate(host, family))
        for state in (partly(management), without_memory(management)):
            with replaced(state):
                assert small.differ(small.sample(host, animate(host, family)), full) < 1e-4, family
                cancelled(host, lambda f=family: small.sample(host, animate(host, f), steps=20))
                assert small.differ(small.sample(host, animate(host, family)), full) < 1e-4, family


def check_cancelled_runs_leave_no_model_behind(host):
    import gc
    import weakref

    import comfy.model_management as management

    fresh = small.Fresh(host)
    model, *_ = animate(fresh, FAMILIES[0])
    gone = weakref.ref(model.model)
    cancelled(host, lambda: small.sample(host, animate(fresh, FAMILIES[0]), steps=20))
    del model
    fresh.cache.clear()
    management.unload_all_models()
    management.cleanup_models_gc()
    gc.collect()
    assert gone() is None, [type(holder).__name__ for holder in gc.get_referrers(gone())]
