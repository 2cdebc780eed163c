"""generate and convert run as modules and as files, from any folder and by an isolated Python, as ComfyUI's portable one
is, which looks for packages neither beside the file nor in the working folder."""

import subprocess
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[3]
GENERATE = ["--checkpoint", "absent.safetensors", "--source", "a.png", "--pose", "b.json", "--out", "c.png"]
CONVERT = ["fpdm", "absent.ckpt", "out.safetensors"]


@pytest.mark.parametrize(("name", "arguments", "said"), [
    ("generate", GENERATE, "python -m pgpis_models.generate: --checkpoint absent.safetensors is not there; expected a file "
     "or a folder. Give the path from the folder that the command runs in, or a whole one"),
    ("convert", CONVERT, "error: no file absent.ckpt")])
@pytest.mark.parametrize("isolated", [True, False])
def test_files_run_from_any_folder(tmp_path, name, arguments, said, isolated):
    command = [sys.executable, *(["-I"] if isolated else []), str(PACK / "pgpis_models" / f"{name}.py"), *arguments]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.strip()) == (2, said)


@pytest.mark.parametrize(("name", "arguments", "said"), [
    ("generate", GENERATE, "--checkpoint absent.safetensors is not there"), ("convert", CONVERT, "no file absent.ckpt")])
def test_modules_run_from_the_packs_folder(name, arguments, said):
    ran = subprocess.run([sys.executable, "-m", f"pgpis_models.{name}", *arguments], cwd=PACK, capture_output=True,
                         text=True)
    assert ran.returncode == 2 and said in ran.stderr and "Traceback" not in ran.stderr
