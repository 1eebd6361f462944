"""The commands of rendered containers, run as local processes, with an unmodified client.

Names of Services become 127.0.0.1 and fixed ports become free ones; everything else is as the manifests have it.
"""

import json
import os
import sys
import urllib.request

import pytest
import yaml
from distributed import Client
from rendering import ROOT, container, objects, template

DEADLINE = 120


@pytest.fixture
def cluster(start, binaries, tmp_path):
    """Runs a scheduler's command and workers' commands."""
    path = f"{tmp_path}:{binaries}:{ROOT / 'docker'}:{os.environ['PATH']}"
    for alias, program in [("dscheduler", "dask-scheduler"), ("dworker", "dask-worker")]:
        (tmp_path / alias).symlink_to(binaries / program)

    class Cluster:
        address = dashboard = None

        def environment(self, container, **more):
            given = {each["name"]: each["value"] for each in container.get("env") or [] if not each["name"].startswith("EXTRA_")}
            return {**os.environ, "PATH": path, "DASK_PYTHON": sys.executable, **given, **more}

        def run(self, arguments, environment):
            # What the image's entry point does last.
            return start([str(ROOT / "docker/prepare.sh"), *arguments], env=environment, cwd=tmp_path)

        def scheduler(self, container, **environment):
            replaced = {"--port=8786": "--port=0", "--dashboard-address=:8787": "--dashboard-address=:0"}
            arguments = [replaced.get(word, word) for word in container["args"]]
            process = self.run(arguments, self.environment(container, **environment))
            self.address = process.line_with("Scheduler at:").split()[-1]
            self.dashboard = process.line_with("dashboard at:").split()[-1].replace("/status", "")

        def worker(self, container, name="w", **environment):
            own = {"DASK_WORKER_NAME": name, **environment}
            at = self.address.split("://")[1]
            fixed = {"8790": "0", "8788": "0", "8789": "0", "my-dask-scheduler:8786": at}
            arguments = [fixed.get(word, word).replace("$(DASK_WORKER_NAME)", name) for word in container["args"]]
            variables = self.environment(container, **own)
            for variable in ("SCHEDULER", "DASK_SCHEDULER_ADDRESS"):
                if variable in variables:
                    variables[variable] = self.address
            return self.run(arguments, variables)

    return Cluster()


def works(cluster, workers):
    with Client(cluster.address, timeout=DEADLINE) as client:
        client.wait_for_workers(workers, timeout=DEADLINE)
        assert client.submit(sum, range(1000)).result(timeout=DEADLINE) == 499500
        return client.scheduler_info()["workers"].values()


@pytest.mark.parametrize("values", ["load-balancers", "small-workers", "groups", "packages"])
def test_commands_of_our_chart_make_a_cluster(cluster, values):
    found = objects(template(ROOT / f"helm/values/{values}.yaml"))
    cluster.scheduler(container(found["Deployment", "my-dask-scheduler"]))
    workers = [each for (kind, name), each in found.items() if kind == "Deployment" and "-worker" in name]
    for deployment in workers:
        cluster.worker(container(deployment))
    there = works(cluster, len(workers))
    wanted = {container(each)["args"][container(each)["args"].index("--nthreads") + 1] for each in workers}
    assert {str(worker["nthreads"]) for worker in there} == wanted
    probe = container(found["Deployment", "my-dask-scheduler"])["readinessProbe"]["httpGet"]["path"]
    with urllib.request.urlopen(cluster.dashboard + probe, timeout=DEADLINE) as answer:
        assert answer.read() == b"ok"


def test_commands_of_somebody_elses_chart_make_a_cluster(cluster):
    """dask/helm-chart, of which DASK_TEST_HELM_CHART names a copy."""
    chart = os.environ.get("DASK_TEST_HELM_CHART")
    if not chart:
        pytest.skip("NOT RUN: DASK_TEST_HELM_CHART names no copy of dask/helm-chart")
    found = objects(template(ROOT / "helm/values/load-balancers.yaml", chart=chart))
    cluster.scheduler(container(found["Deployment", "my-dask-scheduler"]))
    cluster.worker(container(found["Deployment", "my-dask-worker"]))
    works(cluster, 1)


@pytest.mark.parametrize("directory", ["kubernetes", "kubernetes/legacy-rc"])
def test_commands_of_the_plain_manifests_make_a_cluster(cluster, directory):
    def workload(name):
        found = objects((ROOT / directory / f"{name}.yaml").read_text())
        return next(each for (kind, _), each in found.items() if kind in ("Deployment", "ReplicationController"))

    cluster.scheduler(container(workload("dscheduler")), SCHEDULER_PORT="0", DASHBOARD_PORT="0")
    process = cluster.worker(container(workload("dworker")))
    process.line_with("Detected ")
    works(cluster, 1)


def test_commands_of_2016_make_a_cluster(cluster):
    cluster.scheduler({"args": ["dscheduler", "--host", "127.0.0.1", "--port=8786", "--bokeh-whitelist=*", "--dashboard-address=:8787"]})
    cluster.worker({"args": ["dworker", "my-dask-scheduler:8786", "--nthreads", "1", "--nprocs", "2"]})
    works(cluster, 2)


def test_commands_of_the_operator_make_a_cluster(cluster):
    operator = pytest.importorskip("dask_kubernetes.operator", reason="NOT RUN: there is no dask-kubernetes")
    spec = operator.make_cluster_spec(name="simple", image="dask-rs:0.1.0", n_workers=2)["spec"]
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    (worker,) = spec["worker"]["spec"]["containers"]
    assert scheduler["args"][0] == "dask-scheduler" and worker["args"][0] == "dask-worker"
    scheduler["args"] += ["--port=8786", "--dashboard-address=:8787"]
    cluster.scheduler(scheduler)
    # The operator sets both for every worker.
    for name in ["simple-default-worker-a", "simple-default-worker-b"]:
        cluster.worker(worker, name, DASK_SCHEDULER_ADDRESS="tcp://simple-scheduler.default.svc.cluster.local:8786")
    assert {each["name"] for each in works(cluster, 2)} == {"simple-default-worker-a", "simple-default-worker-b"}


def test_commands_of_the_operators_examples_make_a_cluster(cluster):
    document = yaml.safe_load((ROOT / "operator/cluster.yaml").read_text())["spec"]
    (scheduler,) = document["scheduler"]["spec"]["containers"]
    (worker,) = document["worker"]["spec"]["containers"]
    group = yaml.safe_load((ROOT / "operator/workergroup.yaml").read_text())["spec"]["worker"]
    (other,) = group["spec"]["containers"]
    scheduler["args"] += ["--port=8786", "--dashboard-address=:8787"]
    cluster.scheduler(scheduler)
    cluster.worker(worker, "one", DASK_SCHEDULER_ADDRESS="")
    cluster.worker(other, "two", DASK_SCHEDULER_ADDRESS="")
    there = {each["name"]: each for each in works(cluster, 2)}
    assert there["two"]["resources"] == {"MEMORY": 8e9}


def test_the_board_shows_metrics_that_exist(cluster):
    board = (ROOT / "grafana/dask-rs.json").read_text()
    cluster.scheduler({"args": ["dask-scheduler", "--port=8786", "--dashboard-address=:8787"]})
    cluster.worker({"args": ["dask-worker", "my-dask-scheduler:8786", "--nthreads", "1"]})
    (worker,) = works(cluster, 1)
    pages = [cluster.dashboard, f"http://{worker['host']}:{worker['services']['dashboard']}"]
    names = set()
    for page in pages:
        with urllib.request.urlopen(page + "/metrics", timeout=DEADLINE) as answer:
            lines = answer.read().decode().splitlines()
        names.update(line.split("{")[0].split()[0] for line in lines if line and not line.startswith("#"))
    expressions = [target["expr"] for panel in json.loads(board)["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    for expression in expressions:
        assert any(name + "{" in expression for name in names), expression
