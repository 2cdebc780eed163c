"""The diffusers binding against the authors' patched UNet, and whole sampling runs in all six guidance modes."""

import functools

import pytest
import torch
from diffusers import UNet2DConditionModel

from pgpis_models.cfld.config import CFLDConfig
from pgpis_models.cfld.model import CFLD, GUIDANCE_MODES
from pgpis_models.noise.schedule import NoiseSchedule, ddim_step, ddpm_step, leading_timesteps, sample
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.injections import Injections, everywhere, harmonise


def build_unet(config, golden) -> UNet2DConditionModel:
    known = {key: value for key, value in config.items() if key != "trainable"}
    unet = UNet2DConditionModel(**known)
    unet.load_state_dict({key.removeprefix("ref.model."): value for key, value in golden.items() if key.startswith("ref.")})
    return unet.eval()


def build_method(config, golden) -> CFLD:
    scales = slice(None, None, 3)
    model = CFLD(CFLDConfig(
        image_size=(config["img"],) * 2, window=config["window"], swin_width=config["swin_embed"],
        swin_depths=tuple(config["swin_depths"]), swin_heads=tuple(config["swin_heads"]),
        appearance_widths=tuple(config["app_embed"][scales]), appearance_heads=tuple(config["app_heads"][scales]),
        appearance_depth=config["app_depth"], prompt_tokens=config["n_ctx"], prompt_width=config["ctx_dim"],
        decoder_depth=config["dec_depth"], decoder_heads=config["dec_heads"],
        unet_widths=tuple(config["unet_channels"][:3])))
    own = model.state_dict()
    model.load_state_dict({key.removeprefix("ref."): value for key, value in golden.items()
                           if key.removeprefix("ref.") in own})
    return model.eval()


@torch.no_grad()
def test_injections_reach_the_unet_as_in_the_authors_copy(load_case, compare):
    golden, info = load_case("cfld", "unet")
    unet = build_unet(info["config"], golden)
    method = CFLD(CFLDConfig(unet_widths=tuple(info["config"]["block_out_channels"][:3]), image_size=(64, 64), window=4,
                             swin_width=8, swin_depths=(1,) * 4, swin_heads=(2, 2, 4, 4),
                             prompt_width=info["config"]["cross_attention_dim"], decoder_heads=1))   # of any width
    assert {f"model.{name}" for name in method.trainable_unet_weights()} == set(info["config"]["trainable"])
    biases = {f"up.{n // 3}.{n % 3}": golden[f"in.block_{n}_cross_attn_q"] for n in range(3, 12)}
    maps = tuple(golden[f"in.pose_feature{n}"] for n in (1, 2, 3))
    context, sample_, time = golden["in.context"], golden["in.sample"], golden["in.timestep"]
    taps = {}
    modules = {f"down_blocks_{i}": block for i, block in enumerate(unet.down_blocks)}
    modules |= {"mid_block": unet.mid_block} | {f"up_blocks_{i}": block for i, block in enumerate(unet.up_blocks)}
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: taps.__setitem__(
            f"out.tap_{name}", out[0] if isinstance(out, tuple) else out))
    binding = DiffusersBinding(unet)

    def run(**fields):
        rows = harmonise([Injections(context=everywhere(context), **fields)], len(sample_)).stacked()
        return binding(sample_, time, rows)

    ours = {"out.no_appearance": run(down_residuals=maps), "out.no_pose": run(query_bias=biases), "out.plain": run()}
    ours["out.full"] = run(down_residuals=maps, query_bias=biases)  # last, so that the taps are of this run
    compare(ours | taps, golden, {"out.tap_*": 5e-5, "out.[fnp]*": 5e-6})


@pytest.mark.parametrize("run", ["default", *GUIDANCE_MODES, "ddim"])
@torch.no_grad()
def test_sampling_runs_follow_the_authors(load_case, run):
    golden, info = load_case("cfld", "sampling")
    config = info["config"]
    weights, unet_case = load_case("cfld", "conditioning")[0], load_case("cfld", "unet")
    method, binding = build_method(config, weights), DiffusersBinding(build_unet(config["unet"], unet_case[0]))
    encoded = method.encode(golden["in.image"], golden["in.pose"])
    mode = run if run in GUIDANCE_MODES else "uc_down_full"
    scales = None if run == "default" else config["scales"]
    named = {} if scales is None else {
        "pose": scales["DOWN_BLOCK_GUIDANCE_SCALE"], "appearance": scales["FULL_GUIDANCE_SCALE"],
        "biases": scales["ALL_BLOCK_GUIDANCE_SCALE"], "prompt": scales["GUIDANCE_SCALE"]}
    used = {link.scale for link in GUIDANCE_MODES[mode][1:]}
    guidance = method.guidance(encoded, mode, **{name: value for name, value in named.items() if name in used})
    denoise, seen, path = binding.denoiser(guidance, len(golden["in.latents"])), [], []

    def watched(x, t):
        seen.append(denoise(x, t))
        return seen[-1]

    published = config["scheduler"]
    schedule = NoiseSchedule(beta_start=published["beta_start"], beta_end=published["beta_end"],
                             prediction=published["prediction_type"])
    timesteps = leading_timesteps(config["steps"], offset=published["steps_offset"])
    stepper = functools.partial(ddim_step, final="first") if run == "ddim" else ddpm_step
    latents = sample(watched, golden["in.latents"], schedule, timesteps, stepper, noise=golden["in.noise"],
                     callback=lambda _i, _t, x: path.append(x))
    ours = {"latents": latents, "timesteps": timesteps, "eps": torch.stack(seen), "trajectory": torch.stack(path)}
    expected = {key.removeprefix(f"out.{run}."): value for key, value in golden.items() if key.startswith(f"out.{run}.")}
    assert {"latents", "timesteps"} <= set(expected) <= set(ours)
    assert torch.equal(ours["timesteps"], expected.pop("timesteps"))
    for key, value in expected.items():
        tolerance = 2e-5 if key == "eps" else 5e-5
        difference = (ours[key] - value).abs().max().item()
        assert difference <= tolerance, f"{run}.{key}: off by {difference:.3g}, allowed {tolerance:.3g}"


def test_every_run_of_the_case_is_followed(load_case):
    golden, _ = load_case("cfld", "sampling")
    runs = {key.split(".")[1] for key in golden if key.startswith("out.")}
    assert runs == {"default", *GUIDANCE_MODES, "ddim"}
