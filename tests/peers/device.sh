#!/usr/bin/env bash
# Measures genzoo on this machine's accelerator and compares it with torch; writes $OUT/device.json.
#
#   tests/peers/device.sh first      versions, precision, a fast part of the suite, ddpm_cifar with
#                                    torch, edm_cifar
#   tests/peers/device.sh second     ADM-64 with torch, two minutes of training, resume after a kill
#   tests/peers/device.sh PART...    parts by name
#   tests/peers/device.sh --dry ...  the same in tiny sizes on the CPU; without a name, all parts
#
# For a machine with a GPU, JAX and torch, but no network: fetch the other packages beforehand with
# device_wheels.sh. A call takes at most seven minutes, and each part has its own time limit. The
# report is written after every step, so an interrupted call leaves its results so far. The exit
# code is 1 if any part failed or was cut off.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly CALL_SECONDS=420
readonly FIRST=(versions precision suite ddpm_cifar edm_cifar)
readonly SECOND=(adm64 training resume)
declare -rA LIMIT=(
  [versions]=40 [precision]=50 [suite]=110 [ddpm_cifar]=165 [edm_cifar]=60
  [adm64]=190 [training]=155 [resume]=80
)
declare -rA FILE=(
  [versions]=versions [precision]=precision [suite]=suite [ddpm_cifar]=speed [edm_cifar]=speed
  [adm64]=speed [training]=training [resume]=resume
)

python=${PYTHON:-python3}
wheels=${WHEELS:-build/device-wheels}
export OUT=${OUT:-runs/device}
export DEVICE_DRY=${DEVICE_DRY:-}
parts=()
for word in "$@"; do
  case $word in
    --dry) DEVICE_DRY=1 ;;
    first) parts+=("${FIRST[@]}") ;;
    second) parts+=("${SECOND[@]}") ;;
    *)
      if [[ ! -v LIMIT[$word] ]]; then
        echo "device.sh: $word is not a part; parts are: ${FIRST[*]} ${SECOND[*]}" >&2
        exit 2
      fi
      parts+=("$word")
      ;;
  esac
done
if [[ ${#parts[@]} == 0 ]]; then
  if [[ -z $DEVICE_DRY ]]; then
    sed -n '2,14s/^# \{0,1\}//p' "$0"
    exit 2
  fi
  parts=("${FIRST[@]}" "${SECOND[@]}")
fi

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
DEVICE_SCRATCH=$(mktemp -d)
export DEVICE_SCRATCH
trap 'rm -rf "$DEVICE_SCRATCH"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1
export GENZOO_CACHE=${GENZOO_CACHE:-$DEVICE_SCRATCH/cache}  # the runs share compiled programs
export XLA_PYTHON_CLIENT_PREALLOCATE=false                  # torch uses the same GPU
if [[ -n $DEVICE_DRY ]]; then
  export JAX_PLATFORMS=cpu
  # A busy CPU may need more time even for tiny sizes.
  slowness=10
else
  slowness=1
  # With this list, JAX fails if it cannot use the GPU.
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
  if compgen -G "$wheels/*.whl" >/dev/null; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade \
      --target "$DEVICE_SCRATCH/site" "$wheels"/*.whl
    PYTHONPATH=$PYTHONPATH:$DEVICE_SCRATCH/site
  fi
fi

note() { "$python" tests/peers/device_report.py "$@"; }

all_done=0
for part in "${parts[@]}"; do
  limit=$((slowness * LIMIT[$part]))
  left=$((slowness * CALL_SECONDS - SECONDS))
  ((limit <= left)) || limit=$left
  if ((limit < 10)); then
    note "$part" "skipped: no time left" 0
    all_done=1
    continue
  fi
  echo "== $part: at most $limit s"
  began=$SECONDS code=0
  DEVICE_SECONDS=$limit timeout --kill-after=5 "$limit" \
    "$python" "tests/peers/device_${FILE[$part]}.py" "$part" || code=$?
  case $code in
    0) status="done" ;;
    124 | 137) status="cut off after $limit s" ;;
    *) status="failed with exit code $code" ;;
  esac
  [[ $status == "done" ]] || all_done=1
  note "$part" "$status" $((SECONDS - began))
  echo "== $part: $status"
done
echo "The report: $OUT/device.json"
exit $all_done
