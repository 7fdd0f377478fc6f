"""Noise schedules and text encoders. Run inside a ComfyUI by in_host.py."""

import types

import torch


def toy(x, t):
    """A network: what it answers does not matter, only that it is asked the same."""
    return torch.tanh(0.3 * x + 0.001 * t)


def abar():
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)


def reference(noise, base, steps, velocity):
    """VideoCrafter's and DynamiCrafter's own DDIM with a scaled signal, as published."""
    scale = torch.cat([torch.linspace(1, base, 400, dtype=torch.float64), torch.full((600,), base).double()])
    x, stride = noise.double(), 1000 // steps
    for t in reversed(range(1, 1000, stride)):
        a, before = abar()[t], max(t - stride, 0)
        out = toy(x, t)
        e = a.sqrt() * out + (1 - a).sqrt() * x if velocity else out
        x0 = (a.sqrt() * x - (1 - a).sqrt() * out if velocity else (x - (1 - a).sqrt() * e) / a.sqrt()) / scale[t]
        x = abar()[before].sqrt() * scale[before] * x0 + (1 - abar()[before]).sqrt() * e
    return x


def check_the_scaled_schedule_is_videocrafters(host):
    module = host.module("nodes.host.models.model_sampling")
    schedules = host.module("nodes.host.sampling.schedules")
    for velocity in (False, True):
        for base in (0.7, 0.3):
            settings = {"linear_start": 0.00085, "linear_end": 0.012, "scale_base": base}
            sampling = module.sampling(types.SimpleNamespace(sampling_settings=settings), velocity, True)
            assert (sampling.sigmas.diff() > 0).all()
            torch.manual_seed(0)
            noise = torch.randn(1, 4, 3, 4, 4)
            sigmas = schedules.diffusers(sampling, 20, "ddim", {})
            first = module.end_scale(sampling, float(sigmas[0]))
            x = noise.double() / first
            for sigma, following in zip(sigmas[:-1].double(), sigmas[1:].double(), strict=True):
                sigma, following = sigma.view(1), following.view(1)
                t = float(sampling.timestep(sigma.float()))
                out = toy(sampling.calculate_input(sigma, x), t)
                denoised = sampling.calculate_denoised(sigma, out, x)
                x = denoised + (x - denoised) * following / sigma
            x = x * module.end_scale(sampling, float(sigmas[-1]))
            wanted = reference(noise, base, 20, velocity)
            difference = float((x - wanted).abs().max() / wanted.abs().max())
            assert difference < 1e-4, (velocity, base, difference)


def hosts_own(config):
    import comfy.model_sampling

    return type("Plain", (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS), {})(config)


def check_a_scale_of_one_is_the_plain_schedule(host):
    module = host.module("nodes.host.models.model_sampling")
    config = types.SimpleNamespace(sampling_settings={"scale_base": 1.0})
    ours, plain = module.sampling(config, False, True), hosts_own(config)
    x, sigma = torch.randn(2, 4, 3, 4, 4), torch.tensor([0.5, 7.0])
    assert torch.allclose(ours.sigmas, plain.sigmas, rtol=1e-5)
    assert torch.allclose(ours.calculate_input(sigma, x), plain.calculate_input(sigma, x), rtol=1e-4, atol=1e-6)
    a, b = ours.noise_scaling(sigma, x, x * 0, True), plain.noise_scaling(sigma, x.clone(), x * 0, True)
    assert torch.allclose(a, b, rtol=1e-4)


def check_tables_move_with_the_model_and_stay_where_a_host_puts_anothers_buffers_back(host):
    """0.24.0's dynamic VRAM does that by name, from one clone of a model to the next."""
    module = host.module("nodes.host.models.model_sampling")
    config = types.SimpleNamespace(sampling_settings={"scale_base": 0.7})
    another = hosts_own(types.SimpleNamespace(sampling_settings={"zsnr": True}))
    for scaled in (False, True):
        ours = module.sampling(config, False, scaled)
        before = {name: getattr(ours, name).clone() for name in ours.tables}
        assert not list(ours.named_buffers())
        for name, buffer in another.named_buffers():
            ours.register_buffer(name, buffer)
        assert all(torch.equal(getattr(ours, name), table) for name, table in before.items())
        assert not torch.equal(ours.sigmas, another.sigmas)
        assert ours.to("meta").sigmas.is_meta


def check_levels_are_spaced_as_the_names_say(host):
    schedules = host.module("nodes.host.sampling.schedules")
    model, _, _ = host.tiny()
    sampling = model.model.model_sampling

    def at(steps, sampler, **config):
        levels = schedules.diffusers(sampling, steps, sampler, config)
        assert len(levels) == steps + 1
        return [int(sampling.timestep(level.view(1))) for level in levels[:-1]], float(levels[-1])

    first = float(sampling.sigmas[0])
    assert at(5, "ddim", timestep_spacing="leading", steps_offset=1) == ([801, 601, 401, 201, 1], first)
    assert at(5, "ddim", set_alpha_to_one=True)[1] == 0.0
    assert at(4, "dpmpp_2m", timestep_spacing="leading", steps_offset=1) == ([801, 601, 401, 201], 0.0)
    assert at(4, "euler", timestep_spacing="trailing") == ([999, 749, 499, 249], 0.0)
    assert at(4, "euler", timestep_spacing="linspace", steps_offset=0) == ([999, 666, 333, 0], 0.0)


def check_align_your_steps_takes_its_own_levels(host):
    schedules = host.module("nodes.host.sampling.schedules")
    model, _, _ = host.tiny()
    sampling = model.model.model_sampling
    ten = schedules.align_your_steps(sampling, 10, "euler", {})
    assert torch.allclose(ten[:-1], sampling.sigmas[list(schedules.AYS_TIMESTEPS)], rtol=1e-4)
    for steps in (1, 4, 25):
        levels = schedules.align_your_steps(sampling, steps, "euler", {})
        assert len(levels) == steps + 1
        assert levels[-1] == 0
        assert (levels.diff() < 0).all()


def check_weights_in_brackets_and_long_prompts(host):
    _, clip, _ = host.tiny()
    plain, heavy, long = host.conds(clip, "a red circle", "a (red:1.5) circle", "red circle " * 40)
    assert not torch.equal(plain[0][0], heavy[0][0])
    assert plain[0][0].shape == (1, 77, 32)
    assert long[0][0].shape[1] % 77 == 0
    assert long[0][0].shape[1] > 77
    assert plain[0][1]["pooled_output"].isfinite().all()


def check_the_text_encoder_of_stable_diffusion_2_is_the_hosts_own(host):
    width, inner, layers = 1024, 4096, 23
    names = {"layer_norm1": (width,), "layer_norm2": (width,), "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    names |= {f"self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
    state_dict = {
        "text_model.embeddings.token_embedding.weight": torch.zeros(49408, width, dtype=torch.float16),
        "text_model.embeddings.position_embedding.weight": torch.zeros(77, width, dtype=torch.float16),
        "text_model.final_layer_norm.weight": torch.ones(width, dtype=torch.float16),
        "text_model.final_layer_norm.bias": torch.ones(width, dtype=torch.float16),
    }
    for i in range(layers):
        for name, shape in names.items():
            state_dict[f"text_model.encoder.layers.{i}.{name}.weight"] = torch.zeros(shape, dtype=torch.float16)
            state_dict[f"text_model.encoder.layers.{i}.{name}.bias"] = torch.zeros(shape[0], dtype=torch.float16)
    clip = host.module("nodes.host.models.text_encoder").load_clip(state_dict)
    assert hasattr(clip.cond_stage_model, "clip_h")
    (cond,) = host.conds(clip, "a red circle")
    assert cond[0][0].shape == (1, 77, 1024)
    assert (cond[0][0] == 1).all()
    assert cond[0][1]["pooled_output"].isfinite().all()


def check_vgens_cosine_schedule_loads_and_is_diffusers(host):
    import json
    import shutil

    models = host.base / "models" / "diffusers"
    shutil.copytree(models / "tiny", models / "cosine", dirs_exist_ok=True)
    path = models / "cosine" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "squaredcos_cap_v2"}))
    model, clip, _ = host.run("T2VModelLoader", "cosine", "default")
    wanted = host.module("t2v_models.sampling.ddim").alphas_cumprod({"beta_schedule": "squaredcos_cap_v2"})
    sigmas = model.model.model_sampling.sigmas.double()
    assert torch.allclose(1 / (sigmas**2 + 1), wanted, rtol=1e-3, atol=1e-7)
    assert host.ksample(model, clip).isfinite().all()


def check_distilled_models_take_their_own_steps(host):
    schedules = host.module("nodes.host.sampling.schedules")
    families = host.module("t2v_models.families").FAMILIES
    model, _, _ = host.tiny()
    sampling = model.model.model_sampling
    for name, wanted in (("t2v-turbo-v2", [999, 749, 499, 249]), ("t2v-turbo-ms", [999, 759, 519, 279])):
        levels = schedules.diffusers(sampling, 4, "lcm", families[name].scheduler_config())
        assert [int(sampling.timestep(level.view(1))) for level in levels[:-1]] == wanted
