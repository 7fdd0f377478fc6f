"""Films and continued clips: the library's methods with a host's models."""


def check_host_pipeline_is_a_film_model(host):
    import inspect

    protocol = host.module("t2v_models.films.model").FilmModel
    kind = host.module("nodes.host.film").HostPipeline
    model, clip, _ = host.tiny("tiny-v")
    assert isinstance(kind(model, clip), protocol)
    for name in vars(protocol):
        if not name.startswith("_") and inspect.isfunction(vars(protocol)[name]):
            wanted, given = (inspect.signature(getattr(each, name)).parameters for each in (protocol, kind))
            assert list(wanted) == list(given), name


def check_film_is_resumed_with_its_own_model_only(host):
    import torch

    film = host.module("nodes.host.film")
    clip = host.tiny("tiny-v")[1]
    model = host.tiny("tiny-v")[0]
    key = "diffusion_model.middle_block.0.in_layers.2.weight"
    weight = model.model.state_dict()[key]

    def patched(scale):
        clone = model.clone()
        clone.add_patches({key: ("diff", (torch.full_like(weight, scale),))}, 1.0)
        return clone

    def identity(model, clip=clip):
        return film.HostPipeline(model, clip).identity()

    known = [identity(model), identity(patched(0.1)), identity(patched(0.2))]
    known.append(identity(host.run("T2VModelConditioning", model, 12.0, 0.0, 0.0)[0]))
    known.append(identity(model, host.tiny()[1]))
    assert len(set(known)) == len(known)
    conds = host.conds(clip, "a", "")
    host.sample(patched(0.1), *conds)  # loads the patched weights
    assert identity(patched(0.1)) == known[1]

    folder = host.base / "output" / "t2v_unfinished"
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {"fuse_method": "pyramid", "closed_loop": False, "resume": True, "seed": 3, "steps": 2, "cfg": 4.0}
    made = [host.run("T2VFilm", model, clip, host.story, method="coarse-to-fine", **size, **how)[0] for _ in range(2)]
    assert torch.equal(made[0]["samples"], made[1]["samples"])
    (kept,) = folder.iterdir()
    host.run("T2VFilm", patched(0.1), clip, host.story, method="windows", **size, **how)
    (other,) = folder.iterdir()
    assert other != kept, "a finished film makes room for the next"


def check_film_is_not_resumed_where_code_of_other_nodes_changes_the_model(host):
    import torch

    (model, clip, _), folder = host.tiny("tiny-v"), host.base / "output" / "t2v_unfinished"
    size = {"frames": 4, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {"fuse_method": "pyramid", "closed_loop": False, "resume": True, "seed": 4, "steps": 2, "cfg": 4.0}
    known, made = {each.name for each in folder.glob("*")}, []
    for factor in (1.0, 1.5):
        patched = model.clone()
        patched.set_model_output_block_patch(lambda h, hsp, options, factor=factor: (h * factor, hsp))
        made.append(host.run("T2VFilm", patched, clip, host.story, method="windows", **size, **how)[0]["samples"])
    assert not torch.allclose(*made)
    assert {each.name for each in folder.glob("*")} == known
    pipeline = host.module("nodes.host.film").HostPipeline
    assert pipeline(model, clip).unknowable() == []
    added, attention, hooked = model.clone(), model.clone(), clip.clone()
    added.set_injections("bypass_lora", [object()])
    attention.model_options["transformer_options"]["optimized_attention_override"] = lambda *args: None
    hooked.patcher.forced_hooks = object()
    found = [pipeline(*each).unknowable() for each in ((added, clip), (attention, clip), (model, hooked))]
    assert found == [["bypass_lora"], ["optimized_attention_override"], ["hooks"]]
    skipped = host.run("CLIPSetLastLayer", clip, -2)[0]
    pipelines = (host.module("nodes.host.film").HostPipeline(model, each) for each in (clip, skipped))
    assert len({each.identity() for each in pipelines}) == 2


def check_film_uses_its_own_windows_not_those_of_the_model(host):
    import torch

    model, clip, _ = host.tiny("tiny-v")
    (other,) = host.run("T2VFreeNoise", model, 8, 4, "pyramid")
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {"fuse_method": "pyramid", "closed_loop": False, "resume": False, "seed": 3, "steps": 2, "cfg": 4.0}
    for method in ("coarse-to-fine", "free-noise"):
        films = [host.run("T2VFilm", m, clip, host.story, method=method, **size, **how)[0] for m in (model, other)]
        assert torch.equal(films[0]["samples"], films[1]["samples"]), method


def check_films_give_patches_of_core_their_options(host):
    model, clip, _ = host.tiny("tiny-v")
    seen = []

    def patch(h, options):
        seen.append((h.shape[0], options["cond_or_uncond"], float(options["sigmas"].max())))
        return h

    patched = model.clone()
    patched.set_model_output_block_patch(lambda h, hsp, options: (patch(h, options), hsp))
    size = {"frames": 4, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {"fuse_method": "pyramid", "closed_loop": False, "resume": False, "seed": 3, "steps": 2}
    host.run("T2VFilm", patched, clip, host.story, method="windows", cfg=4.0, **size, **how)
    assert {tuple(parts) for _, parts, _ in seen} == {(1, 0)}
    assert seen[0][2] > seen[-1][2] > 0
    host.run("T2VFilm", patched, clip, host.story, method="windows", cfg=1.0, **size, **how)
    assert seen[-1][1] == [0]
    (shrunk,) = host.run("PatchModelAddDownscale", model, 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    for method in ("windows", "endless"):
        host.run("T2VFilm", shrunk, clip, host.story, method=method, cfg=4.0, **size, **how)


def check_films_of_scaled_schedules_are_finite(host):
    """VideoCrafter2's schedule on a small model: latents of the first step have its signal and noise."""
    import dataclasses

    module = host.module("nodes.host.models.model_sampling")
    model, clip, _ = host.run("T2VModelLoader", "tiny-v", "default")[:3]
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {"fuse_method": "pyramid", "closed_loop": False, "resume": False, "seed": 3, "steps": 2, "cfg": 4.0}
    made = []
    for scale in (None, 0.7):
        model.model.family = dataclasses.replace(model.model.family, scale_base=scale)
        schedule = module.family_schedule(model.model.scheduler, model.model.family)
        model.model.model_sampling = module.make_model_sampling(schedule, model.model.model_config)
        made.append(host.run("T2VFilm", model, clip, host.story, method="windows", **size, **how)[0]["samples"])
    assert made[1].isfinite().all()
    assert host.difference(*made) > 1e-2


def check_continued_clip_begins_with_the_clip(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    samples = host.sample(model, *conds)
    (longer,) = host.run("T2VContinue", model, *conds, {"samples": samples}, 5, 1, 16, 4.0)
    assert longer["samples"].shape[2] == samples.shape[2] + 5
    assert host.difference(samples, longer["samples"][:, :, : samples.shape[2]]) < 1e-5
    assert longer["samples"].isfinite().all()
    (both,) = host.run("ConditioningCombine", conds[0], conds[1])
    said = host.refusal(lambda: host.run("T2VContinue", model, both, conds[1], {"samples": samples}, 2, 1, 4, 4.0))
    assert "has 2 parts" in said
    hooked = [[conds[0][0][0], {**conds[0][0][1], "hooks": object()}]]
    said = host.refusal(lambda: host.run("T2VContinue", model, hooked, conds[1], {"samples": samples}, 2, 1, 4, 4.0))
    assert "T2VContinue was given carries hooks" in said


def check_film_refuses_a_clip_whose_hooks_it_would_lose(host):
    model, clip, _ = host.tiny()
    hooked = clip.clone()
    hooked.apply_hooks_to_conds = object()
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {
        "fuse_method": "pyramid",
        "closed_loop": False,
        "resume": False,
        "seed": 3,
        "steps": 2,
        "cfg": 4.0,
        "method": "windows",
    }
    said = host.refusal(lambda: host.run("T2VFilm", model, hooked, host.story, **size, **how))
    assert "T2VFilm was given carries hooks" in said
