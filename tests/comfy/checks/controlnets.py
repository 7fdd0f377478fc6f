"""Core's ControlNets on clips: every frame has its own hint. Run inside a ComfyUI by in_host.py."""

from types import SimpleNamespace

import torch
from clip_noise import noise_of_the_clip


def controlnet(host, model):
    """A ControlNet of random weights for the tiny UNet."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    torch.manual_seed(1)
    net = comfy.cldm.cldm.ControlNet(
        image_size=8,
        in_channels=4,
        model_channels=32,
        hint_channels=3,
        num_res_blocks=[1, 1],
        channel_mult=(1, 2),
        transformer_depth=[1, 0],
        transformer_depth_middle=1,
        num_head_channels=16,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        context_dim=32,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    net.eval()
    import comfy.model_management as management

    return comfy.controlnet.ControlNet(net, load_device=management.get_torch_device())


def check_a_controlnet_sees_every_frame(host):
    model, clip, _ = host.tiny()
    positive, negative = host.prompts(clip)
    net = controlnet(host, model)
    hint = torch.rand(4, 64, 64, 3)
    pos, neg = host.run("ControlNetApplyAdvanced", positive, negative, net, hint, 1.0, 0.0, 1.0)
    with noise_of_the_clip():
        on_clip = host.ksample(model, clip, conds=(pos, neg))
        on_frames = host.ksample(model, clip, torch.zeros(4, 4, 8, 8), conds=(pos, neg))
    plain = host.ksample(model, clip, conds=(positive, negative))
    assert (on_clip - plain).abs().max() > 1e-3
    difference = (on_clip[0].transpose(0, 1) - on_frames).abs().max()
    assert difference / on_clip.abs().max() < 1e-4, float(difference)
    two = host.ksample(model, clip, torch.zeros(2, 4, 4, 8, 8), conds=(pos, neg))
    assert two.isfinite().all()


def check_a_controlnet_in_windows_is_shown_each_windows_own_images(host):
    model, clip, _ = host.tiny()
    conds = host.prompts(clip)
    net = controlnet(host, model)
    samples, hint = torch.zeros(1, 4, 12, 8, 8), torch.rand(12, 64, 64, 3)
    other = torch.cat([hint[:9], 1 - hint[9:]])  # another hint for frames 9 to 11
    (windowed,) = host.run("T2VWindows", model, 6, 3, "flat", False)

    def out(model, hint, steps=1):
        guided = host.run("ControlNetApplyAdvanced", *conds, net, hint, 1.0, 0.0, 1.0)
        return host.ksample(model, clip, samples, conds=guided, steps=steps)

    one, two = out(windowed, hint), out(windowed, other)
    assert torch.equal(one[:, :, :6], two[:, :, :6]), "in one step, frames of windows that end before frame 9"
    assert (one[:, :, 9:] - two[:, :, 9:]).abs().amax(dim=(1, 3, 4)).min() > 1e-3
    (whole,) = host.run("T2VWindows", model, 12, 6, "flat", False)
    plain = out(model, hint, 3)
    assert (out(windowed, hint, 3) - plain).abs().max() > 1e-3
    assert (out(whole, hint, 3) - plain).abs().max() < 1e-5, "one window, and the hint is whole again after the others"


def check_the_caches_of_newer_controlnets_are_emptied_for_every_window(host):
    """Newer hosts keep the prepared hint by its size, which all windows share."""
    module = host.module("nodes.host.models.controlnet")
    for caches in ({"cond_hints": {}}, {"control_inputs": {}}, {"cond_hints": {}, "control_inputs": {}}, {}):
        net = SimpleNamespace(cond_hint_original=torch.arange(8.0), cond_hint=None, previous_controlnet=None, **caches)
        seen = []

        def get_control(*args, net=net, seen=seen):
            for cache in (getattr(net, "cond_hints", {}), getattr(net, "control_inputs", {})):
                assert not cache, "a window found the hint of another"
                cache[8, 8] = net.cond_hint_original
            net.cond_hint = net.cond_hint_original
            seen.append(net.cond_hint_original.tolist())

        net.get_control = get_control
        adapter = module.FrameControl(net)
        for window in ([0, 1], [2, 3], [6, 7]):
            adapter.window = window
            adapter.get_control(torch.zeros(1, 4, 2, 8, 8), torch.zeros(1), {}, 1)
        assert seen == [[0.0, 1.0], [2.0, 3.0], [6.0, 7.0]]
        assert torch.equal(net.cond_hint_original, torch.arange(8.0))
        assert net.cond_hint is None
        assert not any(getattr(net, name, None) for name in caches)
