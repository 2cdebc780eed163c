"""Whole FPDM runs against the authors' pipeline: encoders, guidance, DDPM steps, autoencoder; and one training loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel

from pgpis_models.fpdm.config import FPDMConfig, FusionConfig
from pgpis_models.fpdm.convert import published_names
from pgpis_models.fpdm.model import FPDM
from pgpis_models.noise.schedule import NoiseSchedule, leading_timesteps, sample
from pgpis_models.parts.vision_tower import TowerSizes
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.guidance import Guidance
from pgpis_models.unet.injections import harmonise


def tower(config) -> TowerSizes:
    mlp = config.get("intermediate_size") or config["mlp_ratio"] * config["hidden_size"]
    return TowerSizes((config["image_size"],) * 2, config["patch_size"], config["hidden_size"],
                      config["num_hidden_layers"], config["num_attention_heads"], mlp)


class Run:
    """The case with our modules built from its settings and weights."""

    def __init__(self, golden, info, unet_config) -> None:
        self.golden, self.info = golden, info
        state = {key.removeprefix("ref."): value for key, value in golden.items() if key.startswith("ref.")}
        own = {key: value for key, value in (unet_config | info["unet"]).items() if not key.startswith("class_embed")}
        clip, size = info["clip"], tuple(info["image_size_wh"][::-1])
        embed, projection, hidden = info["combiner"]
        self.config = FPDMConfig(
            FusionConfig(tower(clip), embed, projection, hidden), tower(info["dino"]),
            source_size=tuple(golden["in.src_pixels"].shape[2:]), image_size=size,
            source_hidden=len(state["sd_model.srcimage_proj_model.net.0.weight"]),
            pose_widths=tuple(info["pose_block_out_channels"]), unet_widths=tuple(own["block_out_channels"]),
            class_hidden=len(state["unet.class_embedding.net.0.weight"]), context=own["cross_attention_dim"])
        self.method, self.names = FPDM(self.config).eval(), published_names(self.config)
        shapes = self.method.state_dict()
        self.method.load_state_dict({name: state[key].reshape(shapes[name].shape)
                                     for name, (key, _) in self.names.items()})
        self.unet = UNet2DConditionModel(**own).eval()
        weights = self.method.unet_weight_shapes()
        self.unet.load_state_dict({name: state[f"unet.{name}"] for name in weights})
        self.vae = AutoencoderKL(
            block_out_channels=info["vae_block_out_channels"], norm_num_groups=info["vae_norm_num_groups"],
            down_block_types=("DownEncoderBlock2D",) * len(info["vae_block_out_channels"]), latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * len(info["vae_block_out_channels"]), layers_per_block=2).eval()
        self.vae.load_state_dict({key.removeprefix("vae."): value for key, value in state.items()
                                  if key.startswith("vae.")})
        published = info["scheduler"]
        self.schedule = NoiseSchedule(published["beta_schedule"], published["beta_start"], published["beta_end"],
                                      published["num_train_timesteps"], prediction=published["prediction_type"])
        self.binding = DiffusersBinding(self.unet)

    def encode(self):
        source = self.method.encode_source(self.golden["in.src_pixels"], self.golden["in.fusion_source_pixels"])
        return self.method.encode(source, self.golden["in.pose"], self.golden["in.fusion_pose_pixels"])

    def sampled(self, denoise, prefix: str) -> dict[str, torch.Tensor]:
        """Every output of a run by golden key."""
        seen, path = [], []

        def watched(x, t):
            seen.append(denoise(x, t))
            return seen[-1]

        timesteps = leading_timesteps(self.info["steps"], self.schedule.steps, self.info["scheduler"]["steps_offset"])
        latents = sample(watched, self.golden["in.latents"], self.schedule, timesteps, noise=self.golden["in.step_noise"],
                         callback=lambda _i, _t, x: path.append(x))
        decoded = self.vae.decode(latents / self.info["vae_scaling_factor"]).sample
        return {f"out.{prefix}.timesteps": timesteps, f"out.{prefix}.guided_pred": torch.stack(seen),
                f"out.{prefix}.latents": torch.stack(path), f"out.{prefix}.decoded": decoded}


@pytest.fixture(scope="module")
def run(load_case) -> Run:
    golden, info = load_case("fpdm", "sampling")
    return Run(golden, info, load_case("fpdm", "unet_cond")[1]["unet"])


def relative(ours: dict, golden: dict) -> dict:
    """Ours scaled so that differences are relative to the largest value of each tensor; integers as they are."""
    scaled = {}
    for key, value in ours.items():
        if value.dtype.is_floating_point:
            expected = golden[key].double()
            value = expected + (value.detach().double() - expected) / expected.abs().max()
        scaled[key] = value
    return scaled


def part(golden, *prefixes: str) -> dict:
    return {key: value for key, value in golden.items() if key.startswith(prefixes)}


@torch.no_grad()
def test_guided_and_plain_runs_follow_the_authors(run, compare):
    encoded, scale, batch = run.encode(), run.info["guidance_scale"], len(run.golden["in.latents"])
    chain = run.method.guidance(encoded, source=scale, fusion=scale)
    assert len(chain.terms) == 3 and len(chain.needed().terms) == 2
    ours = run.sampled(run.binding.denoiser(chain, batch), "cfg")
    alone = run.method.guidance(encoded, source=1.0, fusion=1.0)
    assert [term.name for term in alone.needed().terms] == ["all"]
    ours |= run.sampled(run.binding.denoiser(alone, batch), "nocfg")
    ours |= {"out.fusion_embed": encoded.fusion, "out.src_proj": encoded.tokens}
    expected = part(run.golden, "out.cfg", "out.nocfg", "out.fusion", "out.src")
    compare(relative(ours, expected), expected, {"out.*.timesteps": 0, "out.*.guided_pred": 1e-3, "out.*.latents": 1e-3,
                                                 "out.*.decoded": 1e-3, "out.fusion_embed": 1e-4, "out.src_proj": 1e-4})
    assert leading_timesteps(20).tolist() == run.info["timesteps_20"]


@torch.no_grad()
def test_all_three_terms_give_what_the_shorter_chain_gives(run):
    """The authors run three; equal weights telescope."""
    encoded, batch, x = run.encode(), len(run.golden["in.latents"]), run.golden["in.latents"]
    chain = run.method.guidance(encoded, source=2.0, fusion=2.0)
    rows = harmonise([term.injections for term in chain.terms], batch).stacked()
    every = run.binding(x.repeat(3, 1, 1, 1), torch.full((3 * batch,), 801), rows).chunk(3)
    assert torch.allclose(chain.combine(every), run.binding.denoiser(chain, batch)(x, 801), atol=1e-5)
    uneven = Guidance(run.method.guidance(encoded, source=2.0, fusion=1.5).terms)
    assert len(uneven.needed().terms) == 3


def test_the_training_loss_and_its_gradients_are_the_authors(run, compare):
    golden, method = run.golden, run.method
    for module in (method, run.unet):
        module.requires_grad_(True)
        module.zero_grad()
    with torch.no_grad():
        posterior = run.vae.encode(golden["in.target"]).latent_dist
        clean = (posterior.mean + posterior.std * golden["in.train_vae_noise"]) * run.info["vae_scaling_factor"]
        tokens = method.source_tower(golden["in.src_pixels"])
        fusion = method.fusion(golden["in.fusion_source_pixels"], golden["in.fusion_pose_pixels"])
    noise = golden["in.train_noise"] + run.info["noise_offset"] * golden["in.train_offset"]
    time = golden["in.train_timesteps"]
    told = method.training_injections(tokens, golden["in.pose"], fusion, torch.ones(3, 1))
    noisy = run.schedule.add_noise(clean, noise, time)
    predicted = run.binding(noisy, time, harmonise([told], len(time)).stacked())
    loss = F.mse_loss(predicted, run.schedule.target(clean, noise, time))
    loss.backward()
    gradients = {key: parameter.grad for name, parameter in method.named_parameters()
                 for key in [run.names[name][0].removeprefix("sd_model.")]}
    gradients |= {f"unet.{name}": parameter.grad for name, parameter in run.unet.named_parameters()}
    expected = part(golden, "out.train")
    wanted = [key.removeprefix("out.train.grad.") for key in expected if ".grad." in key]
    ours = {"out.train.loss": loss} | {f"out.train.grad.{key}": gradients[key] for key in wanted}
    compare(relative(ours, expected), expected, {"out.train.loss": 1e-4, "out.train.grad.*": 1e-3})


def test_no_output_of_the_case_is_left_out(load_case):
    golden, _ = load_case("fpdm", "sampling")
    starts = ("out.cfg.", "out.nocfg.", "out.fusion_embed", "out.src_proj", "out.train.loss", "out.train.grad.")
    assert all(key.startswith(starts) for key in golden if key.startswith("out."))
