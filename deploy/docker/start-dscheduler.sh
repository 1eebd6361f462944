#!/usr/bin/env bash
# The scheduler of the compose file and of kubernetes/: listens on every interface.
set -euo pipefail
exec dask-scheduler --port "${SCHEDULER_PORT:-8786}" --dashboard-address ":${DASHBOARD_PORT:-8787}" "$@"
