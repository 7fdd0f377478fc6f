"""Latents of the original samplers, recorded, against T2VVideoSampler's. Run inside a ComfyUI by in_host.py."""

import dataclasses
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import torch

REFERENCES = Path(__file__).parents[2] / "references"


def references():
    """tests/references/samplers.py, without this repository on the path."""
    if "references" not in sys.modules:
        init, search = REFERENCES / "__init__.py", [str(REFERENCES)]
        spec = importlib.util.spec_from_file_location("references", init, submodule_search_locations=search)
        sys.modules["references"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("references.samplers")


def recorded_model(host, recording, family):
    """The MODEL of a recorded network, which takes no picture, whatever its family."""
    family = dataclasses.replace(family, image=False, image_latents="", image_tokens="")
    checkpoint = host.module("t2v_models.checkpoints").open_checkpoint(recording.state_dict())
    info = types.SimpleNamespace(family=family, defaults=family.defaults)
    load_model = host.module("nodes.host.models.model").load_model
    return load_model(dict(checkpoint.unet()), checkpoint.config, info, family.scheduler_config())


def errors(host, runs, sampler=None):
    """The largest difference of each run, where the recorded latents' largest value is 1."""
    samplers, families = references(), host.module("t2v_models.families").FAMILIES
    _, _, t, h, w = samplers.SHAPE
    found = {}
    for family in dict.fromkeys(run.family for run in runs):
        recording = samplers.SamplerRecording.load(family)
        model = recorded_model(host, recording, families[family])
        positive, negative = ([[context, {}]] for context in recording.contexts())
        for run in (run for run in runs if run.family == family):
            (latent,) = host.run("T2VEmptyLatent", 8 * w, 8 * h, t, 1)
            names = (sampler or "ddim (eta)", "diffusers", 1.0)
            how = {"eta": run.eta, "cfg_rescale": run.guidance_rescale}
            call = (model, positive, negative, latent, samplers.SEED, run.steps, run.guidance_scale, *names)
            (result,) = host.run("T2VVideoSampler", *call, **how)
            latents, wanted = result["samples"] * model.model.latent_format.scale_factor, recording.runs[run.name]
            found[run.name] = float((latents - wanted).abs().max() / wanted.abs().max())
    return found


def check_ddim_with_eta_is_videocrafters(host):
    found = errors(host, references().VIDEOCRAFTER)
    assert max(found.values()) < 2e-5, found
    return found


def check_ddim_with_eta_is_dynamicrafters(host):
    """Scale and zero terminal SNR together; the sampler takes the first sample for pure noise, as it is."""
    found = errors(host, references().DYNAMICRAFTER)
    assert max(found.values()) < 2e-5, found
    return found


def check_cores_ddim_is_the_originals_without_fresh_noise(host):
    """Core's step sees a finite sigma where the terminal SNR is zero."""
    runs = [run for run in (*references().VIDEOCRAFTER, *references().DYNAMICRAFTER) if not run.eta]
    found = errors(host, runs, "ddim")
    assert max(value for name, value in found.items() if name.startswith("videocrafter")) < 2e-5, found
    assert max(found.values()) < 3e-4, found
    return found


def check_a_seed_gives_clips_of_a_batch_and_frames_as_a_batch_their_own_fresh_noise(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    call = (5, 3, 4.0, "ddim (eta)", "diffusers", 1.0)
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 4, 2)
    two = host.run("T2VVideoSampler", model, *conds, latent, *call)[0]["samples"]
    assert host.difference(two[:1], two[1:]) > 1e-2
    again = host.run("T2VVideoSampler", model, *conds, latent, *call)[0]["samples"]
    assert torch.equal(two, again)
    still = host.run("T2VVideoSampler", model, *conds, latent, *call, eta=0.0)[0]["samples"]
    assert host.difference(two, still) > 1e-2
    frames = {"samples": torch.zeros(4, 4, 4, 4)}
    assert host.run("T2VVideoSampler", model, *conds, frames, *call)[0]["samples"].isfinite().all()
