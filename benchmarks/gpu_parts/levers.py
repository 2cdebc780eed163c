"""Levers, each alone: memory layout, attention kernels, compilation; a step with it over the same step without."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pgpis_models.unet.diffusers_binding import DiffusersBinding

from .models import Bundle, Size, bundle
from .sampling import Sampler, bare_step, sampler
from .timing import Report, free, seconds

BACKENDS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
COMPILING = 90.0   # seconds that a compilation may take; none is begun with less of the budget left


class Case:
    """A method, its step, and the seconds of that step without any lever."""

    def __init__(self, report: Report, part: str, name: str, size: Size, batch: int, dtype: torch.dtype, tiny: bool,
                 repeats: int) -> None:
        self.report, self.part, self.repeats = report, part, repeats
        self.found: Bundle = bundle(name, size, report.device, dtype, tiny)
        self.binding = DiffusersBinding(self.found.unet)
        self.one: Sampler = sampler(self.found, self.binding, batch)
        self.x = self.one.x()
        self.settings = {"method": name, "size": list(size), "batch": batch, "terms": self.one.terms,
                         "dtype": str(dtype).removeprefix("torch.")}
        self.name = f"{name} {size[0]}x{size[1]} b{batch}"
        self.plain = self.timed()
        self.add("without", self.plain * 1e3, "ms")

    def timed(self) -> float:
        with torch.no_grad():
            return seconds(lambda: self.one.denoise(self.x, 500), self.report.device, self.repeats)

    def add(self, lever: str, value: float, unit: str) -> None:
        self.report.add(self.part, self.name, lever, value, unit, **self.settings)

    def ratio(self, lever: str) -> None:
        self.add(lever, self.timed() / self.plain, "of without")


def channels_last(case: Case) -> None:
    """The UNet's weights and input in the layout that tensor cores read."""
    unet, x = case.found.unet, case.x
    unet.to(memory_format=torch.channels_last)
    case.x = x.contiguous(memory_format=torch.channels_last)
    try:
        case.ratio("channels_last")
    finally:
        unet.to(memory_format=torch.contiguous_format)
        case.x = x


def backend(case: Case, name: str) -> None:
    """One attention kernel alone. Kernels without masks, or for other types and devices, are not to be had everywhere: then
    the row says so."""
    with warnings.catch_warnings(), sdpa_kernel(getattr(SDPBackend, BACKENDS[name])):
        warnings.simplefilter("ignore")   # a line per reason and call
        try:
            case.ratio(f"{name} attention")
        except RuntimeError as error:
            if not any(said in str(error) for said in ("No available kernel", "No viable backend")):
                raise
            case.report.add(case.part, case.name, f"{name} attention", None, "", skipped="no kernel of this kind for the "
                            "method's attention here (its masks, type or device)", **case.settings)


def without_upcast(case: Case) -> None:
    """Attention in the model's own precision, which Stable Diffusion 2.1 asks for in float32."""
    asking = [module for module in case.found.unet.modules() if vars(module).get("upcast_attention")]
    for module in asking:
        module.upcast_attention = False
    try:
        case.ratio("no upcast")
    finally:
        for module in asking:
            module.upcast_attention = True


def compiled(case: Case) -> None:
    """torch.compile of the UNet, ours and bare; how long compiling took, and both steps over those without."""
    unet, rows, add = case.found.unet, case.one.terms * case.one.batch, case.add
    try:
        case.binding.unet = torch.compile(unet)
        with torch.no_grad():
            began = time.monotonic()
            case.one.denoise(case.x, 500)
            add("compiling", time.monotonic() - began, "s")
        ours = case.timed()
        add("step", ours * 1e3, "ms")
        add("ours", ours / case.plain, "of eager")
    finally:
        case.binding.unet = unet
        torch.compiler.reset()
    if case.report.left() < COMPILING:
        return
    case.binding.release()
    bare = bare_step(case.found, rows)
    with torch.no_grad():
        eager = seconds(bare, case.report.device, case.repeats)
        add("bare eager", eager * 1e3, "ms")
        case.found.unet = torch.compile(unet)
        try:
            bare()   # compiles
            fast = seconds(bare, case.report.device, case.repeats)
        finally:
            case.found.unet = unet
            torch.compiler.reset()
    add("bare", fast / eager, "of eager")
    add("ours / bare, both compiled", ours / fast, "ratio")


def run(report: Report, methods: tuple[str, ...], size: Size, batch: int, dtype: torch.dtype, tiny: bool,
        repeats: int) -> None:
    """Every lever but compilation on every method."""
    for name in methods:
        _with(report, "levers", name, size, batch, dtype, tiny, repeats, {
            "channels_last": channels_last,
            **{f"{which} attention": (lambda case, which=which: backend(case, which)) for which in BACKENDS},
            **({"no upcast": without_upcast} if name == "fpdm" else {})})


def run_compile(report: Report, methods: tuple[str, ...], size: Size, batch: int, dtype: torch.dtype, tiny: bool,
                repeats: int) -> None:
    """Compilation of every method for which the budget has time."""
    for name in methods:
        if report.left() < COMPILING:
            report.add("compile", name, "skipped", None, "",
                       skipped=f"{report.left():.0f} s are left; compiling takes about {COMPILING:.0f}")
            continue
        _with(report, "compile", name, size, batch, dtype, tiny, repeats, {"compile": compiled})


def _with(report: Report, part: str, name: str, size: Size, batch: int, dtype: torch.dtype, tiny: bool, repeats: int,
          levers: dict[str, Callable[[Case], None]]) -> None:
    held: list[Case] = []
    report.unit(part, name, lambda: held.append(Case(report, part, name, size, batch, dtype, tiny, repeats)))
    for lever, pull in levers.items() if held else ():
        report.unit(part, f"{name} {lever}", lambda: pull(held[0]))   # noqa: B023
    held.clear()   # with its networks: nobody else has them
    free()
