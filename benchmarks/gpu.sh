#!/usr/bin/env bash
# What a GPU is for, in one run of less than six minutes: training steps and features in bfloat16
# against torch.compile (ResNet-50, 64 and 224 px, dense and pruned), the share of the device's peak
# that they reach, and the tests of finetune/ and pruning/ on the device.
#
#   benchmarks/gpu.sh [FOLDER]       # figures into FOLDER; else $OUT, else ./gpu_figures
#
# Needs no network, no data and no installed ctl_jax: PYTHON (python3) with jax, flax, optax, orbax,
# and pytest for the tests; what is missing is said and left out. Each part has its own time limit
# and prints as it goes. Without a GPU the sizes are tiny: a check of this script.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-${OUT:-gpu_figures}}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# What was compiled before is not looked for.
CTL_JAX_CACHE=$(mktemp -d) && export CTL_JAX_CACHE && trap 'rm -rf "$CTL_JAX_CACHE"' EXIT
cd "$root/benchmarks" || exit 1

has() { "$python" -c "import $1" 2>/dev/null; }

# part NAME SECONDS COMMAND...: its output into NAME.txt, and here.
part() {
  local name=$1 seconds=$(($2 < 345 - SECONDS ? $2 : 345 - SECONDS)) began=$SECONDS status=0
  shift 2
  if ((seconds < 5)); then echo "$name: no time left" | tee -a "$out/parts.txt"; return; fi
  echo "== $name: $*"
  timeout --kill-after=5 "$seconds" "$@" 2>&1 | tee "$out/$name.txt" || status=$?
  ((status == 124)) && echo "$name: not done after $seconds s" | tee -a "$out/$name.txt"
  echo "== $name: status $status, $((SECONDS - began)) s"
  echo "$name $status $((SECONDS - began))" >>"$out/parts.txt"
}

for module in jax flax optax orbax.checkpoint; do
  has "$module" || { echo "No $module for $python: nothing can be measured." >&2; exit 1; }
done
peer=()
has torch || { echo "No torch: measured without a peer."; peer=(--no_torch); }

: >"$out/parts.txt"
part device 60 "$python" - <<'END'
import importlib.util, platform
import jax
found = [f"Python {platform.python_version()}", f"jax {jax.__version__}"]
if importlib.util.find_spec("torch"):
    import torch
    found.append(f"torch {torch.__version__}, CUDA {torch.version.cuda}")
print(", ".join([*found, *(f"{d.platform} {d.device_kind}" for d in jax.devices())]))
END

if grep -q 'gpu \|cuda ' "$out/device.txt"; then
  methods=(--network full --method dense filters@0.5)
  small=("${methods[@]}" --size 64 --batch 256 --rounds 3 --steps 20)
  large=("${methods[@]}" --size 224 --batch 128 --rounds 3 --steps 10)
  features=("${methods[@]}" --size 64 224 --images 8192 1024 --batch 256 --rounds 3)
  tests=(tests/finetune tests/pruning)
  # Processes share the device's memory, and results are compared to float32's digits, not TF32's.
  has xdist && tests+=(-n 8)
  numerics=(XLA_PYTHON_CLIENT_PREALLOCATE=false JAX_DEFAULT_MATMUL_PRECISION=highest
    XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true")
else
  echo "No GPU: tiny sizes."
  small=(--network conv4 --size 32 --batch 16 --method dense --rounds 1 --steps 1 --cpu_time)
  large=(--network conv4 --size 48 --batch 16 --method filters@0.5 --rounds 1 --steps 1 --cpu_time)
  features=(--network conv4 --size 32 --images 64 --method dense --rounds 1 --cpu_time)
  tests=(tests/finetune/test_augment.py tests/pruning/criteria/test_slices.py)
  numerics=()
fi
part train_small 100 "$python" train_step.py "${small[@]}" "${peer[@]}"
if has torch; then
  part extract 70 "$python" extract.py "${features[@]}"
fi
part train_large 100 "$python" train_step.py "${large[@]}" "${peer[@]}"
if has pytest && has hypothesis && has chex; then
  cd "$root" && part tests 100 env "${numerics[@]}" "$python" -m pytest -p no:cacheprovider \
    -m "not slow" --maxfail=20 "${tests[@]}"
else
  echo "No pytest, hypothesis or chex: tests left out."
fi
echo "== parts: name, status (0: well, 124: out of time), seconds"
cat "$out/parts.txt"
echo "Figures in $out, after $SECONDS s."
