# Makes .venv with the package and $extras when it is not there or out of date.
# Sourced by the other scripts, from the root of the checkout.
stamp=.venv/.installed-${extras:-plain}
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "error: $("$python" --version) is too old; set PYTHON to a Python 3.11 or newer" >&2
        exit 2
    }
    echo "making .venv (once; a few minutes) ..." >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --editable ".${extras:+[$extras]}" >&2
    touch "$stamp"
fi
