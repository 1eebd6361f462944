#!/usr/bin/env bash
# Installs what the container's environment asks for, then becomes the command it was given.
#   EXTRA_APT_PACKAGES    Debian packages (needs root)
#   /opt/app/environment.yml, EXTRA_CONDA_PACKAGES    with conda, or with mamba if USE_MAMBA is true
#   EXTRA_PIP_PACKAGES    packages and options of pip install
set -euo pipefail

conda=conda
case "${USE_MAMBA:-}" in
    true | True | 1) conda=mamba ;;
esac

# The lists are words and options, so they are split on purpose.
# shellcheck disable=SC2086
if [ -n "${EXTRA_APT_PACKAGES:-}" ]; then
    echo "EXTRA_APT_PACKAGES: installing $EXTRA_APT_PACKAGES"
    apt-get update --yes
    apt-get install --yes $EXTRA_APT_PACKAGES
fi
environment="${ENVIRONMENT_FILE:-/opt/app/environment.yml}"
if [ -e "$environment" ]; then
    echo "$environment: installing"
    "$conda" env update --name base --file "$environment"
fi
# shellcheck disable=SC2086
if [ -n "${EXTRA_CONDA_PACKAGES:-}" ]; then
    echo "EXTRA_CONDA_PACKAGES: installing $EXTRA_CONDA_PACKAGES"
    "$conda" install --yes $EXTRA_CONDA_PACKAGES
fi
# shellcheck disable=SC2086
if [ -n "${EXTRA_PIP_PACKAGES:-}" ]; then
    echo "EXTRA_PIP_PACKAGES: installing $EXTRA_PIP_PACKAGES"
    python -m pip install $EXTRA_PIP_PACKAGES
fi

exec "$@"
