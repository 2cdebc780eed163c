#!/usr/bin/env bash
# Runs all tests in passes (each host's process apart from the rest) and says at the end what ran and what did not. Of the
# hosts that tools/hosts.sh finds the newest runs the whole host suite, the others the part marked `hosts`, in its environment.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
hosts=()
while IFS= read -r folder; do hosts+=("$folder"); done < <(tools/hosts.sh)
[ ${#hosts[@]} -eq 0 ] || export COMFYUI_PATH=${hosts[0]}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=. HF_HUB_OFFLINE=1
status=0 said=()

run() {  # name, arguments of pytest
  local name=$1 log cases
  shift
  log=$(mktemp)
  "$python" -m pytest -q -rs --durations=5 -p no:cacheprovider "$@" 2>&1 | tee "$log"
  local code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || status=1
  cases=$(grep -E '^[0-9]+ property cases$' "$log" | tail -n 1)
  said+=("$name: $(grep -E '(passed|failed|error|skipped|no tests ran).* in ' "$log" | tail -n 1 | tr -d '=')${cases:+, $cases}")
  rm -f "$log"
}

run "rules, models, training and benchmarks" tests/test_*.py tests/pgpis_models tests/training tests/benchmarks
if [ -d "${PGPIS_GOLDEN:-../shared/golden}" ]; then
  run "golden (parity with the authors' code)" tests/golden
else
  said+=("golden: NOT RUN, no golden data at ${PGPIS_GOLDEN:-../shared/golden} (set PGPIS_GOLDEN)")
fi
if [ ${#hosts[@]} -gt 0 ]; then
  run "host (ComfyUI at ${hosts[0]})" tests/host
  for other in "${hosts[@]:1}"; do
    COMFYUI_PATH=$other run "host, what is marked for older ones (ComfyUI at $other)" tests/host -m hosts
  done
  if command -v chromium >/dev/null && command -v node >/dev/null; then
    run "browser" tests/browser
  else
    said+=("browser: NOT RUN, chromium or node is not installed")
  fi
else
  said+=("host and browser: NOT RUN, no ComfyUI at ${COMFYUI_PATH:-$HOME/comfy/ComfyUI} (set COMFYUI_PATH)")
fi
echo
printf '%s\n' "${said[@]}"
exit $status
