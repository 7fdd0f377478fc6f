"""Noise schedules and text encoders. Run inside a ComfyUI by in_host.py."""

import types

import torch


def toy(x, t):
    """A network: what it answers does not matter, only that it gets the same question."""
    return torch.tanh(0.3 * x + 0.001 * t)


def noise_schedule(host, velocity=False, base=None, *, zero=False, keeps=False):
    config = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "rescale_betas_zero_snr": zero,
        "timestep_spacing": "trailing" if zero else "leading",
        "prediction_type": "v_prediction" if velocity else "epsilon",
    }
    cls = host.module("t2v_models.sampling.schedule").NoiseSchedule
    return cls.from_config(config, scale_base=base, keeps_last_scale=keeps)


def model_sampling(host, *args, **settings):
    schedule = noise_schedule(host, *args, **settings)
    config = types.SimpleNamespace(sampling_settings={"linear_start": 0.00085, "linear_end": 0.012})
    return host.module("nodes.host.models.model_sampling").make_model_sampling(schedule, config)


def abar():
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)


def zero_snr(values):
    root = values.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def reference(noise, base, steps, velocity, *, zero=False, keeps=False, eta=0.0, fresh=()):
    """VideoCrafter's and DynamiCrafter's own DDIM with a scaled signal, as published."""
    scale = torch.cat([torch.linspace(1, base, 400, dtype=torch.float64), torch.full((600,), base).double()])
    table = zero_snr(abar()) if zero else abar()
    stride = 1000 // steps
    times = [999 - i * stride for i in range(steps)] if zero else [*reversed(range(1, 1000, stride))]
    x, fresh = noise.double(), iter(fresh)
    for i, t in enumerate(times):
        last = i + 1 == len(times)
        before = 0 if last else times[i + 1]
        a, following = table[t], table[before]
        out = toy(x, t)
        e = a.sqrt() * out + (1 - a).sqrt() * x if velocity else out
        x0 = (a.sqrt() * x - (1 - a).sqrt() * out if velocity else (x - (1 - a).sqrt() * e) / a.sqrt()) / scale[t]
        sigma = eta * ((1 - following) / (1 - a) * (1 - a / following)).sqrt()
        x = following.sqrt() * scale[t if last and keeps else before] * x0 + (1 - following - sigma**2).sqrt() * e
        x = x + sigma * next(fresh).double() if eta else x
    return x


class Asked:
    """What a sampler of the host calls: the toy network behind a model_sampling."""

    def __init__(self, sampling):
        self.sampling, self.inner_model = sampling, self
        self.model_patcher = types.SimpleNamespace(get_model_object=lambda name: sampling)

    def __call__(self, x, sigma, **_):
        t = float(self.sampling.timestep(sigma.float()))
        seen = self.sampling.calculate_input(sigma, x)
        return self.sampling.calculate_denoised(sigma, toy(seen, t), x)


def sampled(host, sampling, noise, steps, sampler, config, **options):
    """A run of a sampler from pure noise, as T2VVideoSampler does it."""
    module = host.module("nodes.host.models.model_sampling")
    run = host.module("nodes.host.sampling.run")
    sigmas = host.module("nodes.host.sampling.schedules").diffusers(sampling, steps, sampler, config)
    noise = noise * run.pure_noise_factor(sampling, float(sigmas[0]))
    x = sampling.noise_scaling(
        sigmas[:1], noise, torch.zeros_like(noise), float(sigmas[0]) == float(sampling.sigma_max)
    )
    if sampler == "ddim":
        import comfy.k_diffusion.sampling as k

        x = k.sample_euler(Asked(sampling), x, sigmas)
    else:
        x = run.OWN_SAMPLERS[sampler](Asked(sampling), x, sigmas, **options)
    return x * module.final_scale(sampling, float(sigmas[-2]), float(sigmas[-1]))


def check_the_scaled_schedule_is_videocrafters(host):
    torch.manual_seed(0)
    noise = torch.randn(1, 4, 3, 4, 4)
    worst = 0.0
    for velocity in (False, True):
        for base in (0.7, 0.3):
            sampling = model_sampling(host, velocity, base)
            assert (sampling.sigmas.diff() > 0).all()
            wanted = reference(noise, base, 20, velocity)
            x = sampled(host, sampling, noise, 20, "ddim", {})
            worst = max(worst, float((x - wanted).abs().max() / wanted.abs().max()))
    assert worst < 2e-5, worst
    return worst


def check_ddim_with_fresh_noise_is_videocrafters(host):
    torch.manual_seed(0)
    noise, fresh = torch.randn(1, 4, 3, 4, 4), torch.randn(50, 1, 4, 3, 4, 4)
    worst = 0.0
    for base in (1.0, 0.7, 0.3):
        for steps in (10, 50):
            for eta in (0.0, 0.5, 1.0):
                sampling = model_sampling(host, False, base)
                draws = iter(fresh)
                given = {"eta": eta, "noise_sampler": lambda *_, draws=draws: next(draws)}
                wanted = reference(noise, base, steps, False, eta=eta, fresh=fresh)
                x = sampled(host, sampling, noise, steps, "ddim (eta)", {}, **given)
                worst = max(worst, float((x - wanted).abs().max() / wanted.abs().max()))
    assert worst < 2e-5, worst
    return worst


def check_a_scaled_schedule_with_zero_terminal_snr_is_dynamicrafters(host):
    torch.manual_seed(0)
    noise, fresh = torch.randn(1, 4, 3, 4, 4), torch.randn(10, 1, 4, 3, 4, 4)
    worst = {"ddim": 0.0, "ddim (eta)": 0.0}
    for base in (0.7, 0.3):
        sampling = model_sampling(host, True, base, zero=True, keeps=True)
        assert sampling.schedule.alphas_cumprod[-1] == 0
        for steps in (5, 10):
            for sampler, eta in (("ddim", 0.0), ("ddim (eta)", 0.0), ("ddim (eta)", 1.0)):
                draws = iter(fresh)
                given = {"eta": eta, "noise_sampler": lambda *_, draws=draws: next(draws)}
                wanted = reference(noise, base, steps, True, zero=True, keeps=True, eta=eta, fresh=fresh)
                config = {"timestep_spacing": "trailing"}
                x = sampled(host, sampling, noise, steps, sampler, config, **given)
                error = float((x - wanted).abs().max() / wanted.abs().max())
                worst[sampler] = max(worst[sampler], error)
    assert worst["ddim"] < 3e-4, worst  # the host's last sigma is finite
    assert worst["ddim (eta)"] < 2e-5, worst
    return worst


def check_the_first_step_of_a_zero_terminal_snr_finds_the_clean_sample(host):
    """At pure noise the velocity is -s x_0, whatever the noise."""
    sampling = model_sampling(host, True, 0.7, zero=True)
    sigma, clean = sampling.sigmas[-1:], torch.randn(1, 4, 3, 4, 4)
    x = sigma.view(1, 1, 1, 1, 1) * torch.randn(1, 4, 3, 4, 4)
    assert (sampling.calculate_denoised(sigma, -0.7 * clean, x) - clean).abs().max() < 1e-5


def check_sigmas_equal_cores_bit_for_bit(host):
    import comfy.model_sampling

    names = {"scaled_linear": "linear", "linear": "sqrt_linear", "squaredcos_cap_v2": "cosine"}
    make = host.module("nodes.host.models.model_sampling").make_model_sampling
    cls = host.module("t2v_models.sampling.schedule").NoiseSchedule
    for ours, cores in names.items():
        for zero in (False, True):
            config = types.SimpleNamespace(sampling_settings={"beta_schedule": cores, "zsnr": zero})
            betas = {"beta_schedule": ours, "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": zero}
            made, core = make(cls.from_config(betas), config), comfy.model_sampling.ModelSamplingDiscrete(config)
            assert torch.equal(made.sigmas, core.sigmas)
            assert torch.equal(made.log_sigmas, core.log_sigmas)


def check_a_schedule_without_scale_is_cores(host):
    import comfy.model_sampling

    core = type("Plain", (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS), {})()
    ours = model_sampling(host)
    x, sigma = torch.randn(2, 4, 3, 4, 4), torch.tensor([0.5, 7.0])
    assert torch.equal(ours.calculate_input(sigma, x), core.calculate_input(sigma, x))
    scaled = model_sampling(host, False, 1 - 1e-9)
    assert torch.allclose(scaled.calculate_input(sigma, x), core.calculate_input(sigma, x), rtol=1e-4, atol=1e-6)
    a, b = scaled.noise_scaling(sigma, x, x * 0, True), core.noise_scaling(sigma, x.clone(), x * 0, True)
    assert torch.allclose(a, b, rtol=1e-4)


def check_guidance_rescale_restores_the_spread_of_the_networks_output(host):
    """Also for velocities of a scaled schedule, in the network's own terms."""
    run = host.module("nodes.host.sampling.run")
    x, cond, guided = torch.randn(3, 2, 4, 3, 4, 4)
    rescale = host.module("t2v_models.sampling.guidance").rescale
    for velocity in (False, True):
        for base in (None, 0.7):
            sampling = model_sampling(host, velocity, base, zero=velocity)
            sigma = sampling.sigmas[[300, 900]]
            at = [sampling.calculate_denoised(sigma, each, x) for each in (guided, cond)]
            wanted = sampling.calculate_denoised(sigma, rescale(guided, cond, 0.7), x)
            found = run.rescaled(sampling, x, sigma, *at, 0.7)
            assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max(), (velocity, base)


def check_tables_move_with_the_model_and_stay_where_a_host_puts_anothers_buffers_back(host):
    """0.24.0's dynamic VRAM does that by name, from one clone of a model to the next."""
    import comfy.model_sampling

    another = comfy.model_sampling.ModelSamplingDiscrete(types.SimpleNamespace(sampling_settings={"zsnr": True}))
    for base in (None, 0.7):
        ours = model_sampling(host, False, base)
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
        sigmas = schedules.diffusers(sampling, steps, sampler, config)
        assert len(sigmas) == steps + 1
        return [int(sampling.timestep(sigma.view(1))) for sigma in sigmas[:-1]], float(sigmas[-1])

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
        sigmas = schedules.align_your_steps(sampling, steps, "euler", {})
        assert len(sigmas) == steps + 1
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()


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
    model, clip, _ = host.run("T2VModelLoader", "cosine", "default")[:3]
    cls = host.module("t2v_models.sampling.schedule").NoiseSchedule
    wanted = cls.from_config({"beta_schedule": "squaredcos_cap_v2"}).alphas_cumprod
    sigmas = model.model.model_sampling.sigmas.double()
    assert torch.allclose(1 / (sigmas**2 + 1), wanted, rtol=1e-3, atol=1e-7)
    assert host.ksample(model, clip).isfinite().all()


def check_distilled_models_take_their_own_steps(host):
    schedules = host.module("nodes.host.sampling.schedules")
    families = host.module("t2v_models.families").FAMILIES
    model, _, _ = host.tiny()
    sampling = model.model.model_sampling
    for name, wanted in (("t2v-turbo-v2", [999, 749, 499, 249]), ("t2v-turbo-ms", [999, 759, 519, 279])):
        sigmas = schedules.diffusers(sampling, 4, "lcm", families[name].scheduler_config())
        assert [int(sampling.timestep(sigma.view(1))) for sigma in sigmas[:-1]] == wanted
