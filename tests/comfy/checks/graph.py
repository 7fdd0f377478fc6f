"""Checks of the nodes in a graph's order. Run inside a ComfyUI by in_host.py."""


def check_the_pack_has_its_nodes(host):
    import nodes

    ids = {name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("T2V")}
    wanted = {"T2VModelLoader", "T2VTextEncode", "T2VEmptyLatent", "T2VVideoSampler", "T2VVAEDecodeFrames"}
    assert wanted <= ids, wanted - ids
    return sorted(ids)


def check_text_to_frames(host):
    model, clip, vae = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (latent,) = host.run("T2VEmptyLatent", 64, 64, 4, 1)
    (out,) = host.run("T2VVideoSampler", model, positive, negative, latent, 1, 3, 4.0, "ddim", "diffusers", 1.0)
    assert out["samples"].shape == (1, 4, 4, 8, 8)
    (images,) = host.run("T2VVAEDecodeFrames", out, vae)
    assert images.shape == (4, 64, 64, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.isfinite().all()
    return float(out["samples"].std())
