#!/usr/bin/env bash
# Runs all tests in passes (each host's process apart from the rest), two at a time where there are two cores, and says at the
# end what ran and what did not. Of the hosts that tools/hosts.sh finds the newest runs the whole host suite, the others the
# part marked `hosts`, in its environment. What a pass said is shown when it has ended; until then, how far each has come.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
hosts=()
while IFS= read -r folder; do hosts+=("$folder"); done < <(tools/hosts.sh)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=. HF_HUB_OFFLINE=1
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1)   # nproc counts no more than that variable says
lanes=$((cores < 2 ? 1 : 2))
work=$(mktemp -d)
names=() places=() arguments=()

pass() {  # name, host, arguments of pytest
  names+=("$1") places+=("$2") arguments+=("${*:3}")
}

run() {  # number of the pass
  local log=$work/log.$1 begun=$SECONDS cases code
  # A pass without arguments is one that cannot run; its name says why.
  [ -n "${arguments[$1]}" ] || { echo "${names[$1]}" >"$work/said.$1"; return; }
  [ -z "${places[$1]}" ] || export COMFYUI_PATH=${places[$1]}
  # shellcheck disable=SC2086
  "$python" -m pytest -q -rs --durations=5 -p no:cacheprovider ${arguments[$1]} >"$log" 2>&1
  code=$?
  [ "$code" = 0 ] || touch "$work/failed"
  cases=$(grep -E '^[0-9]+ property cases$' "$log" | tail -n 1)
  echo "${names[$1]}: $(grep -E '(passed|failed|error|skipped|no tests ran).* in ' "$log" | tail -n 1 | tr -d '=')${cases:+, $cases}" \
    >"$work/said.$1"
  (
    flock 9
    printf '\n=== %s: ended with %s after %s s\n' "${names[$1]}" "$code" $((SECONDS - begun))
    cat "$log"
  ) 9>"$work/printing"
}

lane() {  # takes the next pass that no other lane has taken, until none is left
  local number
  for number in "${!names[@]}"; do
    mkdir "$work/taken.$number" 2>/dev/null && (run "$number")
  done
}

progress() {  # of the passes that run, once a minute
  local number
  while sleep 60; do
    for number in "${!names[@]}"; do
      [ ! -f "$work/log.$number" ] || [ -f "$work/said.$number" ] || printf '%s %s: %s\n' "$(date +%T)" "${names[$number]}" \
        "$(grep -oE '\[ *[0-9]+%\]$' "$work/log.$number" | tail -n 1)"
    done
  done
}

# The longest come first, so that no lane ends long before the other.
pass "rules, models, training and benchmarks" "${hosts[0]-}" tests/test_*.py tests/pgpis_models tests/training tests/benchmarks
if [ ${#hosts[@]} -gt 0 ]; then
  pass "host (ComfyUI at ${hosts[0]})" "${hosts[0]}" tests/host
  if command -v chromium >/dev/null && command -v node >/dev/null; then
    pass "browser" "${hosts[0]}" tests/browser
  else
    pass "browser: NOT RUN, chromium or node is not installed" ""
  fi
  for other in "${hosts[@]:1}"; do
    pass "host, what is marked for older ones (ComfyUI at $other)" "$other" tests/host -m hosts
  done
else
  pass "host and browser: NOT RUN, no ComfyUI at ${COMFYUI_PATH:-$HOME/comfy/ComfyUI} (set COMFYUI_PATH)" ""
fi
if [ -d "${PGPIS_GOLDEN:-../shared/golden}" ]; then
  pass "golden (parity with the authors' code)" "${hosts[0]-}" tests/golden
else
  pass "golden: NOT RUN, no golden data at ${PGPIS_GOLDEN:-../shared/golden} (set PGPIS_GOLDEN)" ""
fi

# Each lane is a process group of its own, so that whoever ends this script ends the tests and their servers too.
set -m
running=()
trap 'for group in "${running[@]}"; do kill -- "-$group" 2>/dev/null; done; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
progress & running+=($!)
disown   # or bash would tell of its end
for ((number = 1; number <= lanes; number++)); do
  lane & running+=($!)
done
wait "${running[@]:1}"
echo
for number in "${!names[@]}"; do cat "$work/said.$number" || touch "$work/failed"; done
[ ! -e "$work/failed" ]
