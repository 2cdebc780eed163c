"""Weights that were distilled to few steps: the LCM sampler here and the host's, LoRA files, what Pose Transfer says."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
import torch

from tests.helpers.workflows import COMPLAINTS, is_a_picture, of_node, only, psnr, showing, workflow
from tests.host.saved_workflows import to_api
from tests.host.test_workflows import is_near_the_target
from tools.picture_workflows import SIZE


@pytest.fixture(scope="module")
def parts(host):
    names = ("noise.samplers", "noise.schedule", "noise.few_steps", "unet.lora", "checkpoint")
    return {name: host.pack(f"pgpis_models.{name}") for name in names}


@pytest.mark.hosts
@pytest.mark.parametrize("prediction", ["EPS", "V_PREDICTION"])
@torch.no_grad()
def test_the_lcm_sampler_is_the_hosts_on_the_same_noise(prediction, host, parts, tiny):
    """Scheduler simple, the same draws for start and steps, guidance off."""
    import comfy.k_diffusion.sampling
    import comfy.samplers
    unet = tiny.unet()
    model = tiny.model(unet, prediction=prediction)
    schedule = parts["noise.schedule"].NoiseSchedule(
        prediction={"EPS": "epsilon", "V_PREDICTION": "v_prediction"}[prediction])
    shape, steps = (2, 4, *tiny.latent), 4
    generator = torch.Generator().manual_seed(8)
    start, *draws = (torch.randn(shape, generator=generator) for _ in range(steps))
    context = torch.randn(1, 5, tiny.context, generator=generator)

    def denoise(x, t):
        return unet(x, t, encoder_hidden_states=context.expand(len(x), -1, -1)).sample
    times = parts["noise.schedule"].trailing_timesteps(steps)
    ours = parts["noise.schedule"].sample(denoise, start, schedule, times, parts["noise.schedule"].lcm_step,
                                          noise=[*draws, torch.zeros(shape)])

    remaining = iter(draws)
    sampler = comfy.samplers.KSAMPLER(comfy.k_diffusion.sampling.sample_lcm,
                                      extra_options={"noise_sampler": lambda *_: next(remaining)})
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds([[context, {}]], [[context, {}]])
    guider.set_cfg(1.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    theirs = guider.sample(start, torch.zeros_like(start), sampler, sigmas, disable_pbar=True) * 0.18215
    error = float((ours - theirs).abs().max() / ours.abs().max())
    print(f"lcm, {prediction}: {error:.1e}")
    assert error < 1e-4


@pytest.mark.hosts
@torch.no_grad()
def test_a_lora_file_is_merged_as_the_host_does_it(host, parts, tiny, tmp_path):
    import comfy.lora
    import comfy.sd
    import comfy.utils
    lora, generator = parts["unet.lora"], torch.Generator().manual_seed(2)
    unet, layers = tiny.unet(), {}
    model = tiny.model(unet)
    for name in lora.layers_of(unet):
        weight = unet.get_parameter(f"{name}.weight")
        if "time_embedding" in name or "conv_in" in name or "conv_out" in name:
            continue
        layers[name] = (0.1 * torch.randn(3, *weight.shape[1:], generator=generator),
                        0.1 * torch.randn(len(weight), 3, *(1 for _ in weight.shape[2:]), generator=generator))
    path = tmp_path / "lora.safetensors"
    lora.write_lora(path, layers, {"sampling": dataclasses.asdict(parts["noise.few_steps"].Sampling())}, torch.float32)
    assert lora.lora_sampling(lora.lora_metadata(path), path, "any") == parts["noise.few_steps"].Sampling()
    lora.merge_lora(unet, path)
    patched, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), 1.0, 0.0)
    assert len(patched.patches) == len(layers) > 200
    native = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    for name in layers:
        key = f"diffusion_model.{native[f'{name}.weight']}"
        made = comfy.lora.calculate_weight(patched.patches[key], model.model.state_dict()[key].clone(), key)
        assert torch.allclose(made, unet.get_parameter(f"{name}.weight"), atol=1e-5), name
    with pytest.raises(ValueError, match="no LoRA of this UNet: 3 of its .* lora_unet_mid_block_resnets_0_conv1.alpha"):
        lora.read_lora(path, [name for name in lora.layers_of(unet) if name != "mid_block.resnets.0.conv1"])


@pytest.mark.hosts
def test_pose_transfer_says_what_a_distilled_file_is_made_for_and_presets_prefer_others(host, parts, demo, tiny):
    checkpoint, sampling = parts["checkpoint"], parts["noise.few_steps"].Sampling(6)
    path = demo.folder / "a_few_steps.safetensors"   # before cfld_tiny by name
    checkpoint.save_checkpoint(path, demo.method, demo.weights, base="demo", step=0, data="none", licence="none",
                               sampling=sampling)
    try:
        method = host.pack("nodes.loaders").LoadCheckpoint.execute(path.name).result[0]
        said = host.pack("nodes.transfer").advice(method, tiny.model(tiny.unet()))
        assert said == (f"{path.name} (cfld on base demo): made for 6 steps, sampler lcm, scheduler simple, cfg 1.")
        find = host.pack("pgpis_models.files.presets").find
        files = [path, demo.folder / "cfld_tiny.safetensors", demo.folder / "demo_base.safetensors"]
        assert find("Demo CFLD", files, []).files["method"].name == "cfld_tiny.safetensors"
        assert find("Demo CFLD", [files[0], files[2]], []).files["method"] == path
    finally:
        path.unlink()
    plain = demo.folder / "cfld_tiny.safetensors"
    with parts["checkpoint"].open_safetensors(plain) as file:   # what older versions wrote
        assert "pgpis.sampling" not in file.metadata()
    odd = demo.folder / "odd_steps.safetensors"
    meta = dataclasses.replace(checkpoint.read_metadata(plain), sampling=sampling)
    checkpoint.write_checkpoint(odd, {}, {}, meta=meta)
    text = odd.read_bytes().replace(json.dumps(json.dumps({"steps": 6})[:-1])[1:-1].encode(), b"{\\\"steps\\\": 0")
    odd.write_bytes(text)
    try:
        with pytest.raises(ValueError, match="odd_steps.*pgpis.sampling.*1 to 1000 steps"):
            checkpoint.read_metadata(odd)
    finally:
        odd.unlink()


@pytest.mark.hosts
def test_pose_transfer_says_what_a_lora_on_the_model_is_made_for(host, demo, tiny):
    """Newer hosts hand on what a LoRA's file says; older ones keep it, so that the checkpoint's own advice stays."""
    import comfy.sd
    advice = host.pack("nodes.transfer").advice
    method = host.pack("nodes.loaders").LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    plain, load = tiny.model(tiny.unet()), host.nodes.LoraLoaderModelOnly().load_lora_model_only
    usual = advice(method, plain)
    own, other = (load(plain, f"demo_{name}_lcm.safetensors", 1.0)[0] for name in ("cfld", "mcld"))
    if "lora_metadata" not in inspect.signature(comfy.sd.load_lora_for_models).parameters:
        assert advice(method, own) == advice(method, other) == usual
        return
    assert advice(method, own) == (f"{method.name} with the LoRA: made for 4 steps, sampler lcm, scheduler simple, cfg 1.")
    with pytest.raises(ValueError, match="the LoRA on the MODEL was distilled from mcld, the checkpoint is of cfld"):
        advice(method, other)
    assert advice(method, plain) == usual


def test_four_steps_of_one_row_make_the_person_that_twenty_make(server):
    prompt = to_api(workflow("few_steps"), server.object_info)
    assert prompt[only(prompt, "LoraLoaderModelOnly")]["inputs"]["lora_name"] == "demo_qen_lcm.safetensors"
    start = len(server.log.read_text(errors="replace"))
    outputs = server.run(prompt)
    said = server.log.read_text(errors="replace")[start:]
    assert not [one for one in COMPLAINTS if one in said], said[-3000:]
    [few] = of_node(server, outputs, only(prompt, "SaveImage"))
    is_a_picture(few, SIZE)
    [grid] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "PGPISCompareGrid")))
    is_a_picture(grid, (8 + SIZE[0] + 2 * 18 + 8, 8 + 5 * (SIZE[1] + 8)))
    many = grid[8 + 2 * 18:-8, 8 + 2 * (SIZE[1] + 8):][:SIZE[0], :SIZE[1]]
    is_near_the_target(few, "qen")
    prompt[only(prompt, "LoraLoaderModelOnly")]["inputs"]["strength_model"] = 0.0
    [without] = of_node(server, server.run(prompt), only(prompt, "SaveImage"))
    near, far, apart = psnr(few, many), psnr(without, many), psnr(few, without)
    print(f"to the picture of 20 steps: {near:.1f} dB, {far:.1f} without the LoRA; {apart:.1f} between these two")
    assert near > far and apart < 30
