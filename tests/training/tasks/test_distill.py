"""Latent consistency distillation: its loss in float64, what it trains, resuming, and that its files are the student."""

import dataclasses

import numpy as np
import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.noise.few_steps import Sampling
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.pipeline import Generator
from pgpis_models.unet.lora import change, layers_of, read_lora
from tests.helpers.configs import METHODS, config_of
from tests.helpers.steps import changed, trained, weights
from tests.helpers.tiny import train_config
from training.engine.config import DistillConfig
from training.engine.loop import run
from training.engine.lora import OFF, STUDENT, TARGET
from training.tasks.distill import DistillTask, consistency_loss
from training.train import task_class

CPU = torch.device("cpu")
WEIGHTS = {"pose": 1.0, "appearance": 1.5}


def config_for(folder, files, distill=None, method=None, **changes):
    return train_config(folder, files, task="distill", method={"init": str(files.cfld)} | (method or {}),
                        distill={"method": "cfld", "weights": WEIGHTS, "rank": 4} | (distill or {}), **changes)


def make(folder, files, distill=None, **changes) -> DistillTask:
    torch.manual_seed(0)
    return DistillTask(config_for(folder, files, distill, **changes), CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("k", [20, 50])
def test_the_loss_is_the_papers_in_float64(prediction, k):
    """Its formulas for scalars: alpha, sigma, the DDIM solver as LCM writes it, and the boundary condition at t = 0."""
    generator = torch.Generator().manual_seed(3)
    z, noise = (torch.randn(4, 4, 2, 3, generator=generator) for _ in range(2))
    step = torch.tensor([0, 1, 7, 1000 // k - 1])
    networks = {"student": (0.9, 0.1), "target": (0.7, -0.2), "teacher": (1.1, 0.05)}

    def network(name):
        factor, shift = networks[name]
        return lambda x, t: factor * x + shift + (t / 1000).to(x).view(-1, 1, 1, 1)
    settings = DistillConfig(skip=k)
    loss = consistency_loss(z, noise, step, NoiseSchedule(prediction=prediction), network("student"), network("target"),
                            network("teacher"), settings)

    abar = np.cumprod(1 - np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2)
    errors = []
    for row, n in enumerate(step.tolist()):
        t, s = k * (n + 1) - 1, max(k * (n + 1) - 1 - k, 0)
        (a_t, s_t), (a_s, s_s) = ((abar[i] ** 0.5, (1 - abar[i]) ** 0.5) for i in (t, s))
        x = a_t * z[row].double().numpy() + s_t * noise[row].double().numpy()

        def epsilon(name, x, i, a, s):
            factor, shift = networks[name]
            out = factor * x + shift + i / 1000
            return out if prediction == "epsilon" else a * out + s * x

        def consistency(name, x, i, a, s):
            x0 = (x - s * epsilon(name, x, i, a, s)) / a
            skip, out = 0.25 / ((10 * i) ** 2 + 0.25), 10 * i / ((10 * i) ** 2 + 0.25) ** 0.5
            return skip * x + out * x0
        eps = epsilon("teacher", x, t, a_t, s_t)
        solved = a_s / a_t * x - s_s * (s_t * a_s / (a_t * s_s) - 1) * eps
        difference = consistency("student", x, t, a_t, s_t) - consistency("target", solved, s, a_s, s_s)
        errors.append(np.sqrt(difference ** 2 + 0.001 ** 2) - 0.001)
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_before_training_student_target_and_teacher_are_one_network_to_the_bit(folder, files):
    task = make(folder, files)
    model, batch = task.model.eval(), task.batch(np.random.default_rng(0), 2)
    with torch.no_grad():
        chain = model.method.guidance(model.teacher.encode_batch(batch))
        x, t = torch.randn(2, 4, 8, 8), torch.tensor([999, 250])
        made = [model.conditional(chain, 2, which)(x, t) for which in (STUDENT, TARGET, OFF)]
        # the chain's last term by the task that trains it: the same weights, without any hook
        plain = task_class("cfld")(dataclasses.replace(task.config, task="cfld"), CPU).model
        rows = {name: value[-2:] for name, value in harmonised(chain).items()}
        expected = plain.binding(x, t, rows)
    assert all(torch.equal(one, expected) for one in made) and expected.std() > 0.01


def harmonised(chain):
    from pgpis_models.unet.injections import harmonise
    return harmonise([chain.terms[-1].injections], 2).stacked()


@pytest.mark.parametrize("ema", [0.0, 0.95])
def test_the_loss_falls_on_one_batch_and_only_the_lora_changes(folder, files, ema):
    task = make(folder, files, {"target_ema": ema})
    before = weights(task.model)
    losses = trained(task, 20, 1e-2, seed=0)
    assert losses[-1] < 0.8 * losses[0]
    now = changed(task.model, before)
    assert now and all(name.startswith("lora.") for name in now)


def test_the_target_is_the_running_average_of_what_is_trained(folder, files):
    task = make(folder, files, {"target_ema": 0.9})
    lora = task.model.train().lora
    average = [value.detach().clone() for value in (*lora.down, *lora.up)]
    optimiser, batch = torch.optim.Adam(lora.parameters(), 1e-3), task.batch(np.random.default_rng(0), 2)
    for _ in range(3):
        average = [0.9 * old + 0.1 * new.detach() for old, new in zip(average, (*lora.down, *lora.up), strict=True)]
        task.model(batch)[0].backward()
        assert all(torch.allclose(lora.get_buffer(f"average_{n}"), value, atol=1e-7) for n, value in enumerate(average))
        optimiser.step()
        optimiser.zero_grad()
    assert not torch.allclose(average[-1], lora.up[-1])


def test_a_range_of_guidance_is_the_line_between_its_ends(folder, files, monkeypatch):
    low, high, drawn = (make(folder, files, {"weights": {"pose": 1.0, "appearance": value}})
                        for value in (1.0, 3.0, [1.0, 3.0]))
    batch, x, t = low.batch(np.random.default_rng(0), 2), torch.randn(2, 4, 8, 8), torch.tensor([900, 300])
    from training.tasks.distill import guidance_range

    @torch.no_grad()
    def guided(task):
        model = task.model.eval()
        chains = guidance_range(model.method, model.teacher.encode_batch(batch), task.config.distill)
        return model.guided(chains, x)(x, t)
    monkeypatch.setattr(torch, "rand", lambda *shape, device=None: torch.tensor([0.25, 1.0]).view(2, 1, 1, 1))
    share = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)
    assert torch.allclose(guided(drawn), (1 - share) * guided(low) + share * guided(high), atol=1e-5)
    with pytest.raises(ValueError, match=r"distill.weights.pose is \[1, 2, 3\]"):
        make(folder, files, {"weights": {"pose": [1, 2, 3]}})


def test_a_run_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(folder, files, tmp_path, small_grids):
    class Interrupted(Exception):
        pass

    def breaking(config, device):
        task, drawn = DistillTask(config, device), []

        def batch(*args, own=task.batch, **share):
            drawn.append(1)
            if len(drawn) == 4:
                raise Interrupted
            return own(*args, **share)
        task.batch = batch
        return task
    settings = {"images": 12, "batch": 2, "save_every": 4, "ema": 0.9}
    whole = run(config_for(folder, files, name="whole", output=str(tmp_path), **settings), DistillTask)
    broken = config_for(folder, files, name="broken", output=str(tmp_path), **settings)
    with pytest.raises(Interrupted):
        run(broken, breaking)
    resumed = run(broken, DistillTask)
    loras = [path.with_name(f"{path.stem}_lora.safetensors").read_bytes() for path in (whole, resumed)]
    assert loras[0] == loras[1] and whole.read_bytes() == resumed.read_bytes()


def test_the_files_are_the_student_and_say_how_it_is_sampled(folder, files, tmp_path):
    """Of random changes: the merged checkpoint and the teacher with the LoRA beside it make one picture, of a tenth of the
    UNet rows of the teacher's in 20 steps."""
    task = make(folder, files)
    torch.manual_seed(5)
    for value in task.model.lora.up:
        value.data = 0.05 * torch.randn_like(value)
    path = tmp_path / "student.safetensors"
    task.export(path, 77)
    meta = load_checkpoint(path).meta
    assert meta.sampling == Sampling(4, "lcm", "simple", 1.0) and (meta.method, meta.step) == ("cfld", 77)
    assert load_checkpoint(files.cfld).meta.sampling is None

    held = task.teacher.pairs.held_out()
    poses = task.teacher.pairs.test.poses(np.arange(2), np.ones(2, int))
    rows, made = {}, {}
    for name, generator in {"merged": Generator(path, files.base, files.vae),
                            "lora": Generator(files.cfld, files.base, files.vae,
                                              lora=tmp_path / "student_lora.safetensors"),
                            "teacher": Generator(files.cfld, files.base, files.vae)}.items():
        counted = []
        generator.unet.register_forward_pre_hook(lambda _unet, args, counted=counted: counted.append(len(args[0])))
        # 20 steps, as the teacher is measured; the others take what their files say
        made[name] = generator(held["source"][:2], poses, **({"steps": 20} if name == "teacher" else {}))
        rows[name] = sum(counted)
    assert (made["merged"] - made["lora"]).abs().max() < 0.02 and (made["merged"] - made["teacher"]).abs().max() > 0.05
    assert rows == {"merged": 2 * 4, "lora": 2 * 4, "teacher": 2 * 20 * 2}

    with torch.no_grad():   # what training shows is what the file makes
        shown = task.teacher.sample(held["source"][:2], held["target_pose"][:2])
    assert (shown - made["merged"]).abs().max() < 0.03
    read = read_lora(tmp_path / "student_lora.safetensors", layers_of(task.model.teacher.unet))
    unet = load_checkpoint(path).unet_weights
    own = dict(task.model.teacher.unet.named_parameters())
    for layer, value in read.items():
        assert torch.allclose(unet[f"{layer}.weight"], own[f"{layer}.weight"] + change(*value), atol=2e-3)


def test_a_run_goes_on_from_a_lora_and_may_write_that_alone(folder, files, tmp_path):
    task = make(folder, files, {"merge": False})
    for value in task.model.lora.up:
        value.data = torch.randn_like(value).half().float()
    task.export(tmp_path / "first.safetensors", 5)
    assert [path.name for path in tmp_path.iterdir()] == ["first.safetensors"]
    again = make(folder, files, {"lora": str(tmp_path / "first.safetensors")})
    assert all(torch.equal(a, b) for a, b in zip(again.model.lora.up, task.model.lora.up, strict=True))
    with pytest.raises(ValueError, match=r"distill.lora.*at rank 3"):
        make(folder, files, {"lora": str(tmp_path / "first.safetensors"), "rank": 3})
    with pytest.raises(ValueError, match=r"\['no.such'\] fits no layer"):
        make(folder, files, {"layers": ["no.such", "*.to_q"]})
    with pytest.raises(ValueError, match="distill.skip is 30; expected a divisor of 1000"):
        make(folder, files, {"skip": 30})
    with pytest.raises(ValueError, match="method.init is '', which is no file; expected the checkpoint"):
        make(folder, files, method={"init": ""})


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cfld"])
def test_every_method_is_distilled(name, folder, files, fusion, tmp_path):
    own = config_of(name, folder, files, fusion)
    teacher = task_class(name)(own, CPU)
    teacher.export(tmp_path / "teacher.safetensors", 1)
    settings = dataclasses.replace(own.distill, method=name, rank=2)
    task = DistillTask(dataclasses.replace(own, task="distill", distill=settings, method=dataclasses.replace(
        own.method, init=str(tmp_path / "teacher.safetensors"))), CPU)
    before = weights(task.model)
    trained(task, 2)
    now = changed(task.model, before)
    assert now and all(name.startswith("lora.") for name in now)
    ups = {name for name in before if name.startswith("lora.up.")}
    assert len(ups & now) > 0.8 * len(ups)   # at one latent pixel attention has nothing to choose, so queries and keys rest
