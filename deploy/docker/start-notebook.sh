#!/usr/bin/env bash
# JupyterLab on port 8888. It writes a token to its log, unless its configuration has a password. JUPYTERLAB_ARGS adds options.
set -euo pipefail
# shellcheck disable=SC2086
exec jupyter lab --ip=0.0.0.0 --port=8888 --no-browser --allow-root ${JUPYTERLAB_ARGS:-} "$@"
