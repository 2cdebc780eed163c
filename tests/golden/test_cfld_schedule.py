"""Noise schedule, timesteps and learning rate against the authors' code (golden case cfld/scheduler)."""

import torch

from pgpis_models.noise.schedule import NoiseSchedule, ddpm_std, leading_timesteps
from training.engine.loss import cubic_timesteps
from training.engine.rates import cfld_lr


def test_tables_timesteps_and_learning_rate_equal_the_authors(load_case, compare):
    golden, info = load_case("cfld", "scheduler")
    config, lr = info["config"]["scheduler"], info["config"]["lr"]
    schedule = NoiseSchedule(
        kind=config["beta_schedule"], beta_start=config["beta_start"], beta_end=config["beta_end"],
        steps=config["num_train_timesteps"], prediction=config["prediction_type"],
    )
    ours = {
        "out.betas": schedule.betas,
        "out.alphas_cumprod": schedule.alphas_cumprod,
        "out.noisy": schedule.add_noise(golden["in.x0"], golden["in.noise"], golden["in.t"]),
        "out.cubic_timesteps": cubic_timesteps(golden["in.u"], schedule.steps),
        "out.lr": torch.tensor(
            [
                cfld_lr(
                    step, base=lr["base"], warmup=lr["warmup_steps"], warmup_rate=lr["warmup_rate"],
                    decay_at=[epoch * lr["iters_per_epoch"] for epoch in lr["decay_epochs"]],
                    decay_rate=lr["decay_rate"],
                )
                for step in range(lr["epochs"] * lr["iters_per_epoch"])
            ],
            dtype=torch.float64,
        ),
    }
    counts = [int(key.rsplit("_", 1)[1]) for key in golden if key.startswith("out.timesteps_")]
    assert config["timestep_spacing"] == "leading"
    for count in counts:
        timesteps = leading_timesteps(count, schedule.steps, config["steps_offset"])
        ours[f"out.timesteps_{count}"] = timesteps
        chain = [*timesteps.tolist(), -1]
        ours[f"out.std_{count}"] = torch.stack([ddpm_std(schedule, t, before) for t, before in zip(chain, chain[1:])])
    compare(ours, golden, {
        "out.betas": 1e-6, "out.alphas_cumprod": 1e-6, "out.noisy": 1e-6, "out.std_*": 1e-6,
        "out.timesteps_*": 0, "out.cubic_timesteps": 0, "out.lr": 1e-15,
    })
