#!/usr/bin/env bash
# Make the environment .venv from requirements.lock: check the machine, create, install, leave a stamp.
# PYTHON names the interpreter (default: that of a working .venv, else the first of python3.12, python3.11, python3
# that is 3.11 or 3.12).
# SKIP_CHECK=1 goes on although something seems to be missing.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
asked=${PYTHON:-}
started=$SECONDS
export UV_PYTHON_DOWNLOADS=never # the interpreter is the user's choice, never a surprise download
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} # a company network may have a certificate of its own

runs() { "$@" >/dev/null 2>&1; }

find_bootstrap() { # any Python 3 can run the check
    local name
    for name in $asked python3 python3.12 python3.11 python; do
        if runs "$name" -c 'import sys; sys.exit(sys.version_info < (3, 6))'; then
            echo "$name"
            return
        fi
    done
    echo "missing: Python: none runs here; install python3.12 or python3.11 with its venv package" >&2
    return 1
}

choose_python() { # the interpreter for .venv; what is missing goes to stderr
    local check=("$1" scripts/check_machine.py --venv "$venv" --python "$asked")
    if "${check[@]}"; then
        return
    elif [ -n "${SKIP_CHECK:-}" ]; then
        "${check[@]}" --free-disk-gb 1000 --memory-gb 1000 2>/dev/null
    else
        echo "Nothing was installed. SKIP_CHECK=1 make setup goes on with what is there." >&2
        return 1
    fi
}

usable() { # .venv works, has the chosen interpreter's version, and something can install into it
    local code='import sys; print(sys.version_info[:3])'
    [ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c "$code" 2>/dev/null)" = "$("$1" -c "$code")" ] &&
        { runs uv --version || runs "$venv/bin/uv" --version || runs "$venv/bin/python" -m pip --version; }
}

create() {
    rm -rf "$venv"
    if runs uv --version; then
        uv venv --quiet --python "$1" "$venv"
    else
        "$1" -m venv "$venv"
    fi
}

installer() { # uv installs in seconds where pip takes minutes: the user's own, else the pinned one, else pip
    if runs uv --version; then
        echo uv pip install --python "$venv/bin/python"
    elif runs "$venv/bin/uv" --version || runs "$venv/bin/python" -m pip install "$(grep '^uv==' requirements.lock)"; then
        echo "$venv/bin/uv" pip install --python "$venv/bin/python"
    else
        echo "$venv/bin/python" -m pip install
    fi
}

if [ -z "$asked" ] && usable "$venv/bin/python"; then
    asked=$venv/bin/python
fi
bootstrap=$(find_bootstrap)
python=$(choose_python "$bootstrap")
if ! usable "$python"; then
    echo "creating $venv with $python"
    create "$python"
fi
read -ra install <<<"$(installer)"
[ -t 2 ] || install+=(--quiet) # no terminal, no progress bars
echo "installing requirements.lock (about 6 GB on the first time) with ${install[0]}"
"${install[@]}" -r requirements.lock
"${install[@]}" --no-deps --no-build-isolation -e .
touch "$venv/.installed"
echo "ready in $((SECONDS - started)) s: $("$venv/bin/python" --version) in $venv"
