#!/usr/bin/env bash
# A model that hears sentences, from Whisper base: data, labels, encoder, LM, thresholds, scores.
# Run: tools/speech_training.sh FOLDER [DATA]     with PYTHON=... for another interpreter
# FOLDER holds a Whisper in the format of CTranslate2 (see tools/whisper_folder.py), DATA the sets of
# recordings (../shared/data). Everything goes into runs/. What is finished is not made again, and a
# training goes on from its last checkpoint, so that the same command follows an interruption.
# espeak-ng has to be on the path. Hours: docs/guide/speech.md.
set -euo pipefail
FOLDER=${1:?give the folder of a Whisper in the format of CTranslate2} DATA=${2:-../shared/data}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3} OUT=runs
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
proactivellm() { "$PYTHON" -m proactivellm "$@"; }
step() { echo "== $1" >&2; }

[ -f $OUT/whisper-base/model.safetensors ] || {
    step "the Whisper, as transformers has it"
    "$PYTHON" tools/whisper_folder.py "$FOLDER" --out $OUT/whisper-base
}
[ -f $OUT/speech-data/complete ] || {
    step "manifests, digits with pauses, synthetic voices"
    "$PYTHON" tools/speech_data.py --data "$DATA" --out $OUT/speech-data --synthetic 2500 --pauses
    touch $OUT/speech-data/complete
}
[ -f $OUT/speech-data/orders-said.jsonl ] || {
    step "what is said in the orders, by the Whisper offline"
    "$PYTHON" tools/speech_labels.py $OUT/speech-data/orders-train.jsonl \
        --whisper $OUT/whisper-base --out $OUT/speech-data/orders-said.jsonl
}
step "the encoder, by CTC"
proactivellm train recipes/speech-whisper-hearing.toml --out $OUT/speech-whisper-hearing
step "the LM"
proactivellm train recipes/speech-whisper.toml --out $OUT/speech-whisper
[ -f $OUT/speech-whisper/calibration.json ] || {
    step "thresholds"
    proactivellm calibrate --model $OUT/speech-whisper --source $OUT/speech-data/read-valid.jsonl \
        --policy entropy:stride=2 --policy learned:stride=2 --policy ctc:min_lag=-99 --lanes 32
}
step "scores"
for set in read-test digits-pauses-test reader-test; do
    proactivellm evaluate --model $OUT/speech-whisper --source $OUT/speech-data/$set.jsonl --lanes 32 \
        --policy offline --policy wait-k:2,stride=2 --policy learned:laal=1200 --policy ctc:1,min_lag=-99 \
        --out $OUT/ev-$set
done
