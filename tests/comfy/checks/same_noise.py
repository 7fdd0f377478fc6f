"""T2VSameNoise: the frames of a batch share the sampler's noise, at the start and in every step."""

from unittest import mock

FRAMES = 4
CLOSE = 1e-5


def _model(host):
    import small_image_unets

    if "sd15" not in host.cache:
        host.cache["sd15"] = small_image_unets.sd15()
    return host.cache["sd15"]


def _same(host, model, mix=1.0, **given):
    return host.run("T2VSameNoise", model, mix, **given)[0]


def _sample(host, model, sampler="euler", frames=FRAMES, seed=3, steps=2, **latent):
    import small_image_unets
    import torch

    latent = {"samples": torch.zeros(frames, *small_image_unets.LATENT), **latent}
    return host.run("KSampler", model, seed, steps, 1.0, sampler, "karras", *small_image_unets.texts(), latent, 1.0)[0][
        "samples"
    ]


def _custom(host, model, sampler, seed=3):
    """The same by SamplerCustomAdvanced; sampler: a SAMPLER."""
    import small_image_unets
    import torch

    (guider,) = host.run("BasicGuider", model, small_image_unets.texts()[0])
    (sigmas,) = host.run("BasicScheduler", model, "karras", 2, 1.0)
    (noise,) = host.run("RandomNoise", seed)
    latent = {"samples": torch.zeros(FRAMES, *small_image_unets.LATENT)}
    return host.run("SamplerCustomAdvanced", noise, guider, sampler, sigmas, latent)[0]["samples"]


def _spread(host, frames):
    """How far frames are from the first one."""
    return host.difference(frames[1:], frames[:1].expand_as(frames[1:]))


def check_every_sampler_of_the_host_makes_equal_frames_of_one_noise(host):
    import comfy.samplers

    model = _same(host, _model(host))
    for sampler in comfy.samplers.KSampler.SAMPLERS:
        if "cfg_pp" in sampler or sampler == "ar_video":
            continue
        frames = _sample(host, model, sampler)
        assert _spread(host, frames) < CLOSE, (sampler, _spread(host, frames))


def check_ksampler_and_sampler_custom_advanced_agree(host):
    plain = _model(host)
    model = _same(host, plain)
    for name in ("euler", "euler_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde_gpu", "lcm"):
        (sampler,) = host.run("KSamplerSelect", name)
        by_core, custom = _sample(host, model, name), _custom(host, model, sampler)
        assert _spread(host, custom) < CLOSE, name
        assert host.difference(custom, by_core) < CLOSE, name
        assert host.difference(_custom(host, plain, sampler), _sample(host, plain, name)) < CLOSE, (
            "the sampler was changed"
        )


def check_the_first_frame_stays_as_it_is_without_the_node(host):
    for name in ("euler", "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm"):
        plain = _sample(host, _model(host), name)
        for mix in (0.5, 1.0):
            assert host.difference(_sample(host, _same(host, _model(host), mix), name)[:1], plain[:1]) < CLOSE, name
        assert _spread(host, plain) > 0.1


def check_mix_0_is_the_plain_model_to_the_bit(host):
    import torch

    for name in ("euler", "euler_ancestral", "dpmpp_2m_sde"):
        assert torch.equal(_sample(host, _same(host, _model(host), 0.0), name), _sample(host, _model(host), name))
    again = _same(host, _same(host, _model(host), 1.0, frames=9), 0.0)
    assert torch.equal(_sample(host, again), _sample(host, _model(host)))


def check_mix_is_the_correlation_with_the_first_frame_and_the_variance_stays_one(host):
    import torch

    mixed = host.module("nodes.host.zero_shot.same_noise").mixed
    noise = torch.randn(6, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    for mix in (0.0, 0.25, 0.5, 0.9, 1.0):
        out = mixed(noise, mix, videos=2)
        assert torch.equal(out[::3], noise[::3])
        assert (out.flatten(1).std(1) - 1).abs().max() < 0.02
        for k in (1, 2, 4, 5):
            first = out[k // 3 * 3]
            assert abs(float((first * out[k]).mean()) - mix) < 0.02, (mix, k)
        assert abs(float((out[0] * out[4]).mean())) < 0.02
    assert torch.equal(mixed(noise, 0.0), noise)
    assert torch.equal(mixed(noise, 1.0), noise[:1].expand_as(noise))


def check_noise_that_a_sampler_was_given_is_shared_too(host):
    import comfy.samplers
    import torch

    def given(sigma, sigma_next):
        return torch.randn(FRAMES, 4, 8, 8)

    sampler = comfy.samplers.ksampler("euler_ancestral", {"noise_sampler": given})
    assert _spread(host, _custom(host, _same(host, _model(host)), sampler)) < CLOSE
    assert sampler.extra_options == {"noise_sampler": given}


def check_a_sampler_of_another_kind_shares_the_first_noise_and_says_so(host):
    import comfy.samplers

    class Foreign(comfy.samplers.Sampler):
        def sample(
            self,
            model_wrap,
            sigmas,
            extra_args,
            callback,
            noise,
            latent_image=None,
            denoise_mask=None,
            disable_pbar=False,
        ):
            return noise

    with mock.patch.object(host.module("nodes.host.zero_shot.same_noise").log, "info") as info:
        frames = _custom(host, _same(host, _model(host)), Foreign())
    assert _spread(host, frames) == 0
    assert "Foreign" in info.call_args.args


def check_masks_and_partly_denoised_latents_work(host):
    import torch

    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:, :] = 1
    samples = torch.ones(FRAMES, 4, 8, 8)
    frames = _sample(host, _same(host, _model(host)), "euler_ancestral", samples=samples, noise_mask=mask)
    assert _spread(host, frames) < CLOSE
    assert (frames[..., :4, :] - 1).abs().max() < 1e-4


def check_videos_of_a_batch_have_noise_of_their_own(host):
    for given in ({"videos": 2}, {"frames": 3, "videos": 2}):
        frames = _sample(host, _same(host, _model(host), **given), "euler_ancestral", frames=6)
        assert _spread(host, frames[:3]) < CLOSE
        assert _spread(host, frames[3:]) < CLOSE
        assert host.difference(frames[:3], frames[3:]) > 0.1


def check_other_models_and_batches_are_refused_with_a_sentence(host):
    import torch

    assert "for image models" in host.refusal(lambda: _same(host, host.tiny()[0]))
    assert "4 rows" in host.refusal(lambda: _sample(host, _same(host, _model(host), frames=3)))
    clip = torch.zeros(1, 4, FRAMES, 8, 8)
    assert "T2VLatentLayout" in host.refusal(lambda: _sample(host, _same(host, _model(host)), samples=clip))
