#!/usr/bin/env bash
# Time models A to G, the reference models and several widths of each family, at the image sizes of Kodak and CLIC.
# On a quiet machine: nothing else may run meanwhile. What the table has already is not measured again, so a
# stopped script goes on where it was.
#   scripts/measure_runtimes.sh TABLE.csv [DEVICE]     DEVICE: cpu (default), cuda or cuda:N
# About 20 minutes on two CPU cores. KODAK and CLIC name other sizes, for a rehearsal:
#   KODAK=64x64 CLIC=64x128 scripts/measure_runtimes.sh /tmp/rehearsal.csv
set -euo pipefail
cd "$(dirname "$0")/.."

table=${1:?name the table to append to, such as docs/measurements/runtimes_cpu.csv}
device=${2:-cpu}
kodak=${KODAK:-512x768}
clic=${CLIC:-1344x2048}
python=${PYTHON:-.venv/bin/python}

study=(rdc_a rdc_b rdc_c rdc_d rdc_e rdc_f rdc_g)
references=(
    scale_hyperprior mean_scale_hyperprior joint_autoregressive elic
    conv_hyperprior conv_charm swint_hyperprior_s swint_hyperprior swint_charm
)
# Families need several points each; ELIC / CHARM / SwinT has A to D.
widths=(
    'rdc_b width=0.5' 'rdc_e width=0.35' 'rdc_e width=0.5' 'rdc_e width=0.75'
    'rdc_f width=0.25' 'rdc_f width=0.5' 'rdc_f width=1.5' 'rdc_g width=0.5' 'rdc_g width=1.5'
    'conv_charm width=0.125' 'conv_charm width=0.25' 'conv_charm width=0.5'
    'swint_charm width=0.125' 'swint_charm width=0.25' 'swint_charm width=0.5'
    'elic width=0.125' 'elic width=0.25' 'elic width=0.5' 'joint_autoregressive width=0.5'
    'rdc_c hyper_transform=conv width=0.25' 'rdc_c hyper_transform=conv width=0.5'
    'rdc_c hyper_transform=conv' 'rdc_d hyper_transform=conv'
)
threads=(1 2)
if [[ $device == cuda* ]]; then
    threads=(1)
fi

measure() { "$python" -m rdc time --device "$device" --decode-only --output "$table" "$@"; }

# A model that fails is named and left out of the table; the second size is still measured.
status=0
measure --models "${study[@]}" "${references[@]}" "${widths[@]}" \
    --threads "${threads[@]}" --precision fp32 bf16 --images "$kodak" --repeats 3 || status=$?
# Seven times the pixels: as many threads as there are, and fewer repeats.
measure --models "${study[@]}" "${references[@]}" "${widths[@]}" \
    --threads "${threads[-1]}" --precision fp32 bf16 --images "$clic" --repeats 2 || status=$?
exit "$status"
