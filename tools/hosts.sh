#!/usr/bin/env bash
# The ComfyUI folders that the tests run on, newest first: those of COMFYUI_HOSTS (separated by colons), else COMFYUI_PATH
# alone, else ~/comfy/ComfyUI and what lies beside it under such a name.
set -euo pipefail
if [ -n "${COMFYUI_HOSTS:-}" ]; then
  IFS=: read -ra folders <<<"$COMFYUI_HOSTS"
elif [ -n "${COMFYUI_PATH:-}" ]; then
  folders=("$COMFYUI_PATH")
else
  folders=("$HOME"/comfy/ComfyUI*)
fi
for folder in "${folders[@]}"; do
  [ -f "$folder/main.py" ] || continue
  version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$folder/comfyui_version.py" 2>/dev/null || true)
  printf '%s\t%s\n' "${version:-0}" "$folder"
done | sort --version-sort --reverse | cut -f 2
