"""Certificates of a `Security` object as files, which is how programs take them."""

import os
import tempfile


def options(security, role, cleanup):
    """The TLS options of ``role`` ("scheduler" or "worker"). Certificates that are texts are written to files that only
    this user can read, which ``cleanup`` (an ``ExitStack``) removes."""
    if security is None:
        return []
    settings = security.get_tls_config_for_role(role)
    ca, cert, key = (settings.get(name) for name in ("ca_file", "cert", "key"))
    chosen = [("--tls-ca-file", ca), ("--tls-cert", cert), ("--tls-key", key)]
    files = [(option, text) for option, text in chosen if text]
    if any("\n" in text for _, text in files):
        directory = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dask-rs-tls-"))
        files = [(option, _write(directory, option, text)) for option, text in files]
    return [part for pair in files for part in pair]


def _write(directory, option, text):
    if "\n" not in text:
        return text
    path = os.path.join(directory, option.strip("-") + ".pem")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path
