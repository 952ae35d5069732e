#!/usr/bin/env bash
# Pin everything that `.[all,dev]` needs, for Python 3.11 and 3.12 on Linux x86-64, in one file that names no host.
# Pins that still fit are kept; UPGRADE=1 takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements.lock
uv=.venv/bin/uv
common=(pyproject.toml --extra all --extra dev --quiet --no-header --no-annotate --no-emit-index-url
    --python .venv/bin/python --python-platform x86_64-manylinux_2_28)
export UV_PYTHON_DOWNLOADS=never
second=$(mktemp)
trap 'rm -f "$second"' EXIT

"$uv" pip compile "${common[@]}" --python-version 3.11 ${UPGRADE:+--upgrade} --output-file "$lock" >/dev/null
# Python 3.12 must need no other package than 3.11, and no other version.
"$uv" pip compile "${common[@]}" --python-version 3.12 --constraint "$lock" >"$second"
if ! diff "$lock" "$second"; then
    echo "the pins differ between Python 3.11 (<) and 3.12 (>): bound the package in pyproject.toml" >&2
    exit 1
fi
if grep -nE '://|@|\+' "$lock"; then
    echo "the lines above name a host or a local build; unset the local index and lock again" >&2
    exit 1
fi
echo "$lock: $(wc -l <"$lock") packages"
