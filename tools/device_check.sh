#!/usr/bin/env bash
# Everything that a machine with a GPU is needed for, in under 6 minutes: the laws, static steps
# captured as CUDA graphs against uncaptured ones, bf16, int8, and the bench of docs/RESULTS.md.
# Run: tools/device_check.sh [OUT]     with PYTHON=... for another interpreter, DEVICE=cpu to try it.
# With CLIP=clip.mp4, and PyAV: also frames per second, and the time to the first token of a question,
# of the shape of Qwen2.5-VL-3B (or SHAPE=...) after 1 and 10 minutes of that clip in a loop.
# It needs torch, transformers, typer, rich, pydantic, sacrebleu, and torchao for int8; what is
# missing is named first. Status 1 if anything failed, all of it is tried.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} OUT=${1:-out/device}
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
mkdir -p "$OUT"

"$PYTHON" - <<'EOP' || exit 2
import importlib.metadata as m, importlib.util as u, sys
needed = "torch transformers safetensors numpy sacrebleu typer rich pydantic".split()
missing = [name for name in needed if u.find_spec(name) is None]
if missing:
    sys.exit(f"error: {' and '.join(missing)} not installed here: carry the wheels along")
print({name: m.version(name) for name in needed})
if u.find_spec("torchao") is None:
    print("torchao is not installed: the check int8 will fail")
EOP
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null

status=0
timeout 200 "$PYTHON" tools/device_check.py --device "$DEVICE" --out "$OUT" --budget 150 || status=1

bench() {  # NAME FLAGS...: the rows of docs/RESULTS.md, with fewer repeats
    local name=$1; shift
    timeout 75 "$PYTHON" -m proactivellm bench --device "$DEVICE" --repeats 2 --out "$OUT/$name" "$@" \
        || { echo "bench $name failed"; status=1; }
}
bench alone alone --model shape:6x256 --long 0
bench sessions sessions --steps 60
bench graphs sessions --steps 60 --accelerate graph
if [[ -n ${CLIP:-} ]]; then
    bench video video --model "${SHAPE:-shape:qwen2.5-vl-3b}" --clip "$CLIP" --loop 60,600 \
        --drop-tokens chunk-intra:0.25 --attend-chunks 4 --recall-chunks 32
fi
exit $status
