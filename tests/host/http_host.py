"""A real ComfyUI server in its own process and folder with this pack linked in."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
WORKFLOWS = PACK / "workflows"
DEMO = PACK / "models" / "demo"
DEMO_FILES = ("demo_base.safetensors", "demo_vae.safetensors", "demo_cfld.safetensors")
MCLD_FILE = "demo_mcld.safetensors"
FOLDERS = ("custom_nodes", "models/pgpis", "models/checkpoints", "models/loras", "models/controlnet", "input", "output",
           "temp", "user")


class HostError(RuntimeError):
    """The server refused a prompt, failed in it, or went away."""


# --- the server's folder ------------------------------------------------------------------------------------

def make_base(folder: Path) -> Path:
    """A base directory with the pack in it, and with the one picture that every ComfyUI has in its input folder."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "custom_nodes" / "comfyui-pgpis").symlink_to(PACK, target_is_directory=True)
    shutil.copy(WORKFLOWS / "inputs" / "pgpis_source.png", folder / "input" / "example.png")
    return folder


def demo_is_trained() -> bool:
    """Whether the pack ships its whole demo set."""
    return all((DEMO / name).is_file() for name in DEMO_FILES)


def add_random_demo(folder: Path, seed: int = 5) -> None:
    """Random models of the demo's layout into models/pgpis of a base directory, which is searched before the pack's own."""
    import torch

    from pgpis_models.cfld.config import CONFIGS
    from pgpis_models.cfld.model import CFLD
    from pgpis_models.checkpoint import save_checkpoint
    from pgpis_models.unet.autoencoder import save_vae, tiny
    from pgpis_models.unet.base import BaseSizes, save_unet
    models = folder / "models" / "pgpis"
    torch.manual_seed(seed)
    sizes = BaseSizes(block_out_channels=(64, 64, 64, 64), heads=2, cross_attention_dim=64, prediction="v_prediction",
                      caption_tokens=16)
    unet, method = sizes.build(), CFLD(CONFIGS["demo"])
    for value in method.parameters():  # branches that start at zero would hide what they are given
        if not value.detach().any():
            torch.nn.init.normal_(value, std=0.05)
    weights = {name: value for name, value in unet.state_dict().items() if name in method.unet_weight_shapes()}
    save_unet(models / DEMO_FILES[0], unet, sizes, step=0, data="none")
    if not (DEMO / DEMO_FILES[1]).is_file():
        save_vae(models / DEMO_FILES[1], tiny(16), step=0, data="none")
    save_checkpoint(models / DEMO_FILES[2], method, weights, base="demo", step=0, data="none", licence="none")


def add_random_mcld(folder: Path, seed: int = 6) -> None:
    """A random MCLD on the demo's base into models/pgpis of a base directory."""
    import torch

    from pgpis_models.checkpoint import save_checkpoint
    from pgpis_models.mcld.config import CONFIGS
    from pgpis_models.mcld.model import MCLD
    from pgpis_models.unet.base import load_unet
    models = folder / "models" / "pgpis"
    base = models / DEMO_FILES[0]
    unet = load_unet(base if base.is_file() else DEMO / DEMO_FILES[0])[0]
    torch.manual_seed(seed)
    method = MCLD(CONFIGS["demo"])
    method.start_reference(unet.state_dict())
    for value in method.parameters():  # branches that start at zero would hide what they are given
        if not value.detach().any():
            torch.nn.init.normal_(value, std=0.05)
    save_checkpoint(models / MCLD_FILE, method, dict(unet.named_parameters()), base="demo", step=0, data="none",
                    licence="none")


def add_missing_methods(folder: Path, seed: int = 6) -> list[str]:
    """Random checkpoints, into models/pgpis of a base directory, in place of those that the pack's demo set does not hold
    yet: the names of those files."""
    import torch

    from pgpis_models.checkpoint import save_checkpoint
    from pgpis_models.methods import method_classes
    made = []
    if not (DEMO / MCLD_FILE).is_file():
        add_random_mcld(folder, seed)
        made.append(MCLD_FILE)
    for name in ("fpdm", "qen"):
        file = f"demo_{name}.safetensors"
        if (DEMO / file).is_file():
            continue
        torch.manual_seed(seed)
        method = method_classes(name)[1](import_module(f"pgpis_models.{name}").CONFIGS["demo"])
        with torch.no_grad():
            for value in method.parameters():
                value += 0.02 * torch.randn_like(value)   # convolutions that start at zero would hide the pose
        weights = {key: torch.randn(shape) / math.sqrt(max(1, math.prod(shape[1:]))) if len(shape) > 1 else
                   torch.full(shape, float("norm" in key and key.endswith("weight")))
                   for key, shape in method.unet_weight_shapes().items()}
        save_checkpoint(folder / "models" / "pgpis" / file, method, weights, base="demo", step=0, data="none",
                        licence="none", dtype=torch.float16)
        made.append(file)
    return made


# --- the server ---------------------------------------------------------------------------------------------

class Host:
    """Talks to a running server; `log` is where its output goes, if it is ours."""

    def __init__(self, url: str, base: Path | None = None, process: subprocess.Popen | None = None, log: Path | None = None):
        self.url, self.base, self.process, self.log = url.rstrip("/"), base, process, log
        self._info: dict | None = None

    def request(self, path: str, body: dict | None = None, timeout: float = 120) -> bytes:
        """GET, or POST when there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise HostError(f"{path}: {error.code} {error.read().decode(errors='replace')[:3000]}") from error

    def json(self, path: str, body: dict | None = None) -> dict:
        """The answer to `request` as JSON."""
        return json.loads(self.request(path, body))

    @property
    def object_info(self) -> dict:
        """What the server says of its node types."""
        if self._info is None:
            self._info = self.json("/object_info")
        return self._info

    def run(self, prompt: dict, timeout: float = 900) -> dict:
        """Queues an API-format prompt and waits; node id -> its outputs. Raises HostError with the server's message."""
        answer = self.json("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})
        if answer.get("node_errors"):  # the server would run the rest of the graph
            raise HostError(f"the prompt does not validate: {json.dumps(answer['node_errors'])[:3000]}")
        number = answer["prompt_id"]
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.check_alive()
            entry = self.json(f"/history/{number}").get(number)
            if entry and entry.get("status", {}).get("completed"):
                return entry["outputs"]
            if entry and entry.get("status", {}).get("status_str") == "error":
                failed = [data for event, data in entry["status"]["messages"] if event == "execution_error"]
                raise HostError("\n".join(f"{one['node_type']}: {one['exception_message']}\n{''.join(one['traceback'])}"
                                          for one in failed) or json.dumps(entry["status"]))
            time.sleep(0.25)
        raise HostError(f"the prompt did not end within {timeout:.0f} s\n{self.tail()}")

    def picture(self, file: dict) -> np.ndarray:
        """A picture named in a node's outputs, as the server sends it: (H, W, 3) uint8."""
        return np.asarray(Image.open(io.BytesIO(self.picture_bytes(file))).convert("RGB"))

    def picture_bytes(self, file: dict) -> bytes:
        """The same as the file's bytes."""
        return self.request("/view?" + urlencode({key: file[key] for key in ("filename", "subfolder", "type")}))

    def tail(self, characters: int = 6000) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log else ""

    def check_alive(self) -> None:
        if self.process and self.process.poll() is not None:
            raise HostError(f"the server ended with {self.process.returncode}\n{self.tail()}")


@contextmanager
def serve(base: Path, wait: float = 600) -> Iterator[Host]:
    """A server on a base directory made by `make_base`, on a free port; ended when the block ends, however it ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / "server.log"
    command = [sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch",
               "--disable-api-nodes", "--base-directory", str(base), "--database-url", "sqlite:///:memory:",
               "--use-pytorch-cross-attention"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=COMFY, stdout=output, stderr=subprocess.STDOUT, env=environment)
    host = Host(f"http://127.0.0.1:{port}", base, process, log)
    try:
        _wait_until_up(host, wait)
        yield host
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """Ends a process of ours: asks, then insists."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_up(host: Host, wait: float) -> None:
    end = time.monotonic() + wait
    while True:
        host.check_alive()
        try:
            host.request("/system_stats", timeout=5)
            return
        except (HostError, OSError) as error:
            if time.monotonic() > end:
                raise HostError(f"the server did not answer within {wait:.0f} s ({error})\n{host.tail()}") from error
        time.sleep(0.3)
