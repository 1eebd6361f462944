#!/usr/bin/env bash
# A worker of the compose file and of kubernetes/. One process with as many threads as there are processors.
set -euo pipefail
echo "Detected $(nproc) cpus"
exec dask-worker "${SCHEDULER:-dscheduler:8786}" "$@"
