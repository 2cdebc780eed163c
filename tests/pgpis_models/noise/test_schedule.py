"""Noise schedules and steps against the schedulers of diffusers."""

from functools import partial

import pytest
import torch

from pgpis_models.noise.schedule import (
    NoiseSchedule,
    ddim_step,
    ddpm_std,
    ddpm_step,
    lcm_step,
    leading_timesteps,
    sample,
    trailing_timesteps,
)

diffusers = pytest.importorskip("diffusers")

SHAPE = (3, 4, 6, 5)
# kind, zero terminal SNR, prediction
CASES = [
    ("scaled_linear", False, "epsilon"),
    ("scaled_linear", False, "v_prediction"),
    ("linear", False, "epsilon"),
    ("scaled_linear", True, "v_prediction"),
    ("linear", True, "v_prediction"),
]
# Zero terminal SNR is sampled with trailing timesteps only.
CHAINS = [(case, "trailing") for case in CASES] + [(case, "leading") for case in CASES if not case[1]]


def ours(kind="scaled_linear", zero=False, prediction="epsilon") -> NoiseSchedule:
    return NoiseSchedule(kind=kind, zero_terminal_snr=zero, prediction=prediction)


def theirs(cls, kind="scaled_linear", zero=False, prediction="epsilon", **options):
    options = {"clip_sample": False, **options}
    return cls(beta_start=0.00085, beta_end=0.012, beta_schedule=kind, rescale_betas_zero_snr=zero,
               prediction_type=prediction, **options)


def draws(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("case", CASES)
def test_tables_noising_and_velocity_equal_diffusers(case):
    schedule, reference = ours(*case), theirs(diffusers.DDPMScheduler, *case)
    torch.testing.assert_close(schedule.alphas_cumprod, reference.alphas_cumprod, atol=1e-7, rtol=0)
    torch.testing.assert_close(schedule.betas, reference.betas, atol=1e-7, rtol=0)
    x0, noise = draws(2)
    t = torch.tensor([0, 500, 999])
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), reference.add_noise(x0, noise, t), atol=1e-6, rtol=0)
    torch.testing.assert_close(schedule.velocity(x0, noise, t), reference.get_velocity(x0, noise, t), atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_predictions_turn_back_into_the_picture_and_the_noise(case):
    schedule = ours(*case)
    x0, noise = (x.double() for x in draws(2))
    for t in (0, 400, 990, torch.tensor([3, 500, 800])):
        x, prediction = schedule.add_noise(x0, noise, t), schedule.target(x0, noise, t)
        torch.testing.assert_close(schedule.to_x0(prediction, x, t), x0, atol=1e-5, rtol=0)
        torch.testing.assert_close(schedule.to_epsilon(prediction, x, t), noise, atol=1e-5, rtol=0)


def test_zero_terminal_snr_ends_in_pure_noise_and_signal_to_noise_zero():
    schedule = ours("scaled_linear", True, "v_prediction")
    x0, noise = draws(2)
    assert torch.equal(schedule.add_noise(x0, noise, 999), noise)
    assert schedule.snr(torch.tensor([999])).item() == 0
    abar = schedule.alphas_cumprod[300]
    assert schedule.snr(torch.tensor([300])).item() == pytest.approx((abar / (1 - abar)).item())


@pytest.mark.parametrize("count", [1, 5, 7, 20, 30, 50, 64, 333, 999, 1000])
def test_timesteps_equal_diffusers(count):
    for timesteps, options in (
        *([(leading_timesteps(count), {"timestep_spacing": "leading", "steps_offset": 1})] if count < 1000 else []),
        (leading_timesteps(count, offset=0), {"timestep_spacing": "leading", "steps_offset": 0}),
        (trailing_timesteps(count), {"timestep_spacing": "trailing"}),
    ):
        reference = theirs(diffusers.DDIMScheduler, **options)
        reference.set_timesteps(count)
        assert torch.equal(timesteps, reference.timesteps), options


@pytest.mark.parametrize("case, spacing", CHAINS)
def test_the_ddpm_chain_equals_diffusers(case, spacing):
    reference = theirs(diffusers.DDPMScheduler, *case, timestep_spacing=spacing, steps_offset=1)
    reference.set_timesteps(10)
    schedule, timesteps = ours(*case), reference.timesteps
    latents, *predictions = draws(11)

    generator = torch.Generator().manual_seed(7)
    expected, last = latents, int(timesteps[-1])
    for t, prediction in zip(timesteps, predictions):
        # predictions of a fixed size, whatever x: every coefficient of every step shows up in the result
        expected = reference.step(prediction, t, expected, generator=generator).prev_sample
    remaining = iter(predictions)
    result = sample(lambda x, t: next(remaining), latents, schedule, timesteps, ddpm_step,
                    generator=torch.Generator().manual_seed(7))
    assert schedule.abar(last) < 1
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("case, spacing", CHAINS)
def test_the_ddim_chain_equals_diffusers(case, spacing, to_one, eta):
    options = dict(timestep_spacing=spacing, steps_offset=1, set_alpha_to_one=to_one)
    reference = theirs(diffusers.DDIMScheduler, *case, **options)
    reference.set_timesteps(10)
    latents, *predictions = draws(11)
    generator = torch.Generator().manual_seed(7)
    expected = latents
    for t, prediction in zip(reference.timesteps, predictions):
        expected = reference.step(prediction, t, expected, eta=eta, generator=generator).prev_sample
    remaining = iter(predictions)
    stepper = partial(ddim_step, eta=eta, final="one" if to_one else "first")
    result = sample(lambda x, t: next(remaining), latents, ours(*case), reference.timesteps, stepper,
                    generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


def test_a_perfect_prediction_leads_the_ddim_to_the_picture():
    x0, noise = draws(2)
    for schedule in (ours(*case) for case in CASES):
        timesteps = trailing_timesteps(8)
        start = schedule.add_noise(x0, noise, int(timesteps[0]))
        result = sample(lambda x, t, s=schedule: s.target(x0, noise, t), start, schedule, timesteps, ddim_step)
        torch.testing.assert_close(result, x0, atol=1e-4, rtol=0)


def test_given_noise_is_used_step_by_step_and_the_callback_sees_every_step():
    schedule, timesteps = ours(), leading_timesteps(4)
    latents, *noise = draws(5)
    seen = []
    result = sample(lambda x, t: 0.1 * x, latents, schedule, timesteps, noise=torch.stack(noise),
                    callback=lambda index, t, x: seen.append((index, t, x)))
    x = latents
    for t, before, extra in zip(timesteps.tolist(), [*timesteps.tolist()[1:], -1], noise):
        x = ddpm_step(schedule, 0.1 * x, x, t, before, noise=extra)
    assert torch.equal(result, x)
    assert [(index, t) for index, t, _ in seen] == list(enumerate([751, 501, 251, 1]))
    assert torch.equal(seen[-1][2], result)


def test_the_ddim_without_eta_draws_no_noise():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    sample(lambda x, t: x, draws(1)[0], ours(), leading_timesteps(3), ddim_step, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_half_precision_stays_half_and_close():
    schedule = ours()
    x0, noise = draws(2)
    t = torch.tensor([5, 400, 981])
    half = schedule.add_noise(x0.bfloat16(), noise.bfloat16(), t)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), schedule.add_noise(x0, noise, t), atol=0.05, rtol=0.02)
    assert ddpm_step(schedule, noise.half(), x0.half(), 981, 961, noise=noise.half()).dtype == torch.float16


def test_the_noise_of_the_last_step_is_nothing():
    assert ddpm_std(ours(), 1, -1).item() == pytest.approx(1e-10)
    x, prediction, noise = draws(3)
    with_noise = ddpm_step(ours(), prediction, x, 1, -1, noise=noise)
    torch.testing.assert_close(ddpm_step(ours(), prediction, x, 1, -1), with_noise, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: NoiseSchedule(kind="cosine"), "'cosine'; expected"),
        (lambda: NoiseSchedule(prediction="sample"), "'sample'; expected"),
        (lambda: NoiseSchedule(zero_terminal_snr=True), "Use prediction='v_prediction'"),
        (lambda: NoiseSchedule(beta_start=0.5, beta_end=0.1), "0 < beta_start <= beta_end < 1"),
        (lambda: leading_timesteps(0), "0 sampling steps.*1 to 1000"),
        (lambda: leading_timesteps(1000), "1000 sampling steps.*timestep 1000, the schedule's last is 999; expected fewer"),
        (lambda: trailing_timesteps(1001), "1001 sampling steps"),
        (lambda: ours().abar(-1, final="zero"), "'zero'; expected 'one'"),
        (lambda: ddpm_step(ours(), *draws(2), 981, 961), "got no noise"),
        (lambda: ddim_step(ours(), *draws(2), 981, 961, eta=1.0), "got no noise"),
        (lambda: sample(None, draws(1)[0], ours(), [5, 1], noise=draws(3)), "noise for 3 steps came with 2"),
    ],
)
def test_bad_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("offset", [0, 1])
def test_no_number_of_leading_steps_leaves_the_schedule(offset):
    for count in range(1, 1001 - offset):
        chain = leading_timesteps(count, offset=offset)
        assert len(chain) == count and offset == chain[-1] and chain[0] <= 999 and (chain.diff() < 0).all(), count


@pytest.mark.parametrize("case", CASES)
def test_the_lcm_chain_is_the_papers_algorithm_in_float64(case):
    """Multistep latent consistency sampling with its boundary terms c_skip and c_out, on a network that is linear in x."""
    kind, zero, prediction = case
    schedule, timesteps = ours(*case), trailing_timesteps(4)
    assert timesteps.tolist() == [999, 749, 499, 249]
    start, *noise = draws(5)
    result = sample(lambda x, t: 0.8 * x + t / 1000, start, schedule, timesteps, lcm_step, noise=noise)

    power = 2 if kind == "scaled_linear" else 1
    betas = torch.linspace(0.00085 ** (1 / power), 0.012 ** (1 / power), 1000, dtype=torch.float64) ** power
    root = torch.cumprod(1 - betas, 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1]) if zero else root
    x = start.double()
    for t, after, drawn in zip([999, 749, 499, 249], [749, 499, 249, None], noise, strict=True):
        signal, spread = root[t], (1 - root[t] ** 2).sqrt()
        out = 0.8 * x + t / 1000
        x0 = (x - spread * out) / signal if prediction == "epsilon" else signal * x - spread * out
        made = 0.25 / ((10 * t) ** 2 + 0.25) * x + 10 * t / ((10 * t) ** 2 + 0.25) ** 0.5 * x0
        x = made if after is None else root[after] * made + (1 - root[after] ** 2).sqrt() * drawn.double()
    torch.testing.assert_close(result.double(), x, atol=2e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="lcm_step from 999 to 749 got no noise"):
        lcm_step(schedule, start, start, 999, 749)
