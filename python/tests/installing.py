"""Makes the package look installed without building its wheel."""

import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def search_path(site):
    """Fills the directory `site`; the result, as PYTHONPATH, makes the package's entry points known."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    information = site / "dask_rs-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: dask-rs\nVersion: 0\n")
    lines = ["[dask_cli]"] + [f"{name} = {target}" for name, target in project["entry-points"]["dask_cli"].items()]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return f"{site}:{PACKAGE}"
