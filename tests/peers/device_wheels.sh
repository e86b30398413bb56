#!/usr/bin/env bash
# Fetches, as wheels, what device.sh needs beyond a usual machine with JAX and torch: for Python 3.12
# on x86-64 Linux, into build/device-wheels, which git ignores. device.sh installs them from there.
#
#   tests/peers/device_wheels.sh            # fetches
#   tests/peers/device_wheels.sh --check    # and tries all imports in an empty environment
#
# --check makes a virtual environment with what such a machine has, without torch, which is some
# gigabytes; --check-torch has torch too. Both need Python 3.12, by $PYTHON312 or on the PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly MOST_MEGABYTES=50
# Each with what it needs in turn, where the machine does not have that either.
readonly WANTED=(
  ml_collections==1.1.0
  jaxtyping==0.3.11 wadler_lindig==0.1.8 beartype==0.23.1
  grain==0.2.18 array_record==0.8.6 portpicker==1.6.0
  diffusers==0.42.1 importlib_metadata==8.7.1
)
readonly ON_MACHINE=(
  'jax==0.11.*' 'flax<0.13' optax 'orbax-checkpoint<0.13' chex pillow matplotlib tqdm pytest scipy
  transformers requests filelock psutil cloudpickle
)
readonly WITH_TORCH=('torch==2.11.*' accelerate)
# pip takes each platform by its exact name.
readonly PLATFORMS=(
  manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64
  manylinux2014_x86_64 manylinux1_x86_64
)

python=${PYTHON:-python3}
wheels=${WHEELS:-build/device-wheels}
check=
case ${1:-} in
  '') ;;
  --check) check=plain ;;
  --check-torch) check=torch ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

rm -rf "$wheels"
mkdir -p "$wheels"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
  --python-version 3.12 "${PLATFORMS[@]/#/--platform=}" --dest "$wheels" "${WANTED[@]}"
megabytes=$(du -sm "$wheels" | cut -f1)
echo "$wheels: ${#WANTED[@]} wheels, $megabytes MB"
if ((megabytes >= MOST_MEGABYTES)); then
  echo "device_wheels.sh: more than $MOST_MEGABYTES MB must not travel." >&2
  exit 1
fi
[[ -n $check ]] || exit 0

empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
"${PYTHON312:-python3.12}" -m venv "$empty/venv"
machine=("${ON_MACHINE[@]}")
[[ $check == plain ]] || machine+=("${WITH_TORCH[@]}")
"$empty/venv/bin/python" -m pip install --quiet "${machine[@]}"
"$empty/venv/bin/python" -m pip install --quiet --no-index --no-deps --target "$empty/site" \
  "$wheels"/*.whl
PYTHONPATH=$PWD:$empty/site JAX_PLATFORMS=cpu "$empty/venv/bin/python" \
  tests/peers/device_versions.py --imports
echo "All imports work with them in an empty environment."
