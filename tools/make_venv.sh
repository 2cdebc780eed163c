#!/usr/bin/env bash
# Makes .venv: a link to an environment that is shared by all clones with the same requirements, so that a fresh clone
# does not install gigabytes again. With a ComfyUI at hand its requirements are installed too, for the host tests.
set -euo pipefail
cd "$(dirname "$0")/.."
host=${COMFYUI_PATH:-$HOME/comfy/ComfyUI}
files=(requirements/train.txt requirements/test.txt requirements/constraints.txt)
[ -f "$host/requirements.txt" ] && files+=("$host/requirements.txt")
python=${PYTHON:-python3}
key=$( (cat "${files[@]}" tools/make_venv.sh; "$python" --version) | sha256sum | cut -c1-12)
store=${PGPIS_VENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/pgpis}
venv=$store/venv-$key
mkdir -p "$store"
exec 9>"$store/$key.lock"
flock 9
if [ ! -f "$venv/.complete" ]; then
  echo "installing into $venv (once for these requirements)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt)
  if [ -f "$host/requirements.txt" ]; then
    "${pip[@]}" torch torchvision torchaudio -r "$host/requirements.txt" -r requirements/test.txt
  else
    "${pip[@]}" -r requirements/test.txt
  fi
  touch "$venv/.complete"
fi
if [ -L .venv ] || [ ! -e .venv ]; then
  ln -sfn "$venv" .venv
fi
