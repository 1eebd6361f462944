"""From keywords of upstream's ``Scheduler``, ``Worker`` and ``Nanny`` to options of dask-rs's programs."""

import json

SCHEDULER = "distributed.Scheduler"
WORKER = "distributed.Worker"
NANNY = "distributed.Nanny"

_SCHEDULER_OPTIONS = {
    "host": "--host",
    "http_prefix": "--dashboard-prefix",
    "idle_timeout": "--idle-timeout",
    "interface": "--interface",
    "port": "--port",
    "protocol": "--protocol",
    "scheduler_file": "--scheduler-file",
    "worker_ttl": "--worker-ttl",
}
_WORKER_OPTIONS = {
    "contact_address": "--contact-address",
    "death_timeout": "--death-timeout",
    "host": "--host",
    "interface": "--interface",
    "lifetime": "--lifetime",
    "lifetime_stagger": "--lifetime-stagger",
    "listen_address": "--listen-address",
    "local_directory": "--local-directory",
    "max_spill": "--max-spill",
    "memory_limit": "--memory-limit",
    "memory_pause_fraction": "--memory-pause",
    "memory_spill_fraction": "--memory-spill",
    "memory_target_fraction": "--memory-target",
    "memory_terminate_fraction": "--memory-terminate",
    "name": "--name",
    "ncores": "--nthreads",
    "nthreads": "--nthreads",
    "protocol": "--protocol",
    "scheduler_file": "--scheduler-file",
    "scheduler_sni": "--scheduler-sni",
}
# What has no meaning outside a Python process of upstream's, or says how Python logs.
_WITHOUT_EFFECT = {
    "asynchronous", "io_loop", "loop", "quiet", "reconnect", "serializers", "deserializers", "silence_logs",
    "transition_counter_max", "validate",
}  # fmt: skip
_EXTRA = ["python", "policy", "log_level", "event_log", "drain_grace", "interrupt_grace", "reconnect_grace"]


class UnknownOption(TypeError):
    """A keyword that dask-rs's programs have no option for."""


def arguments(kind, keywords):
    """The options that say the same as these keywords of upstream's class, and the environment variables.

    ``kind`` is `SCHEDULER`, `WORKER` or `NANNY`. A keyword that is None (or empty) asks for nothing. Raises
    `UnknownOption` for one that would ask for something that the programs cannot do.
    """
    table = dict(_SCHEDULER_OPTIONS if kind == SCHEDULER else _WORKER_OPTIONS)
    table.update({name: "--" + name.replace("_", "-") for name in _EXTRA})
    if kind == NANNY:
        table.update(port="--nanny-port", worker_port="--worker-port")
    elif kind == WORKER:
        table["port"] = "--worker-port"
    options = ["--no-nanny"] if kind == WORKER else []
    variables = {}
    keywords = dict(keywords)
    options += _dashboard(keywords)
    preload_argv = keywords.pop("preload_argv", None)
    for name, value in keywords.items():
        if name in table:
            if value is not None and value != "":
                options += [table[name], _text(value)]
        elif name in ("preload", "preload_nanny"):
            modules = [value] if isinstance(value, str) else value or []
            options += [text for module in modules for text in ("--" + name.replace("_", "-"), module)]
        elif name == "resources":
            if value:
                options += ["--resources", " ".join(f"{key}={amount}" for key, amount in value.items())]
        elif name in ("lifetime_restart", "task_processes"):
            options += ["--" + name.replace("_", "-")] if value else []
        elif name == "allowed_failures":
            if value is not None:
                variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = str(value)
        elif name == "env" and kind != SCHEDULER:
            variables.update({key: str(text) for key, text in (value or {}).items() if text is not None})
        elif name not in _WITHOUT_EFFECT and value:
            raise UnknownOption(
                f"{name}={value!r}: dask-rs's {'dask-scheduler' if kind == SCHEDULER else 'dask-worker'} has no such "
                "option (it runs outside Python, so objects of Python cannot be handed to it)"
            )
    if preload_argv:
        options += ["--", *preload_argv]
    return options, variables


def _dashboard(keywords):
    shown, address = keywords.pop("dashboard", None), keywords.pop("dashboard_address", None)
    if isinstance(shown, str):
        shown, address = True, address or shown
    options = [] if shown or shown is None else ["--no-dashboard"]
    if address is not None:
        return [*options, "--dashboard-address", _text(address)]
    # Nobody asked for the usual port, which may be another cluster's.
    return options and [*options, "--dashboard-address", ":0"]


def _text(value):
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, bool) else str(value)
