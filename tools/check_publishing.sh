#!/usr/bin/env bash
# What the registry and a host's next version would say of the pack, in an environment of its own: `comfy node validate`
# (comfy-cli), and comfy-import-guard against every host given: names and call signatures of comfy.* that it lacks.
# Usage: tools/check_publishing.sh HOST...   Ends with 0 and says so where the tools cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PGPIS_VENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/pgpis}/publishing
tools=(comfy-cli==1.23.0 comfy-import-guard==1.3.0)
if [ "$(cat "$venv/.complete" 2>/dev/null)" != "${tools[*]}" ]; then
  rm -rf "$venv"
  if ! { "${PYTHON:-python3}" -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check "${tools[@]}"; }; then
    echo "NOT RUN, ${tools[*]} could not be installed"
    exit 0
  fi
  echo "${tools[*]}" >"$venv/.complete"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
status=0

# The registry gets what git tracks and .comfyignore lets through, so that alone is looked at.
mkdir -p "$scratch/install/custom_nodes/pgpis"
git ls-files --cached --ignored --exclude-from=.comfyignore >"$scratch/left_out"
git ls-files | grep -vxFf "$scratch/left_out" | tar --files-from=- -cf - | tar -xf - -C "$scratch/install/custom_nodes/pgpis"
answer=$(cd "$scratch/install/custom_nodes/pgpis" && HOME=$scratch "$venv/bin/comfy" --skip-prompt node validate 2>&1) || status=1
grep -q "validation checks passed" <<<"$answer" || status=1
printf '%s\n' "$answer"

for host in "$@"; do
  # The guard reads a git clone; the host's folder need not be one.
  cache=$scratch/cache.$RANDOM
  mkdir -p "$cache/ComfyUI"
  tar -C "$host" -cf - --exclude=.git --exclude=custom_nodes --exclude=models --exclude=__pycache__ . | tar -xf - -C "$cache/ComfyUI"
  git -C "$cache/ComfyUI" init --quiet
  git -C "$cache/ComfyUI" add --all
  git -C "$cache/ComfyUI" -c user.name=host -c user.email=host@localhost commit --quiet -m host
  echo "comfy.* of $host:"
  "$venv/bin/comfy-import-guard" --cache-dir "$cache" --offline --quiet check --comfy-dir "$scratch/install" --target HEAD \
    || status=1
done
exit $status
