"""Python that clients run in nannies: functions, plugins, environments and folders for their workers."""

import os

import pytest
from distributed import NannyPlugin
from distributed.diagnostics.plugin import Environ, UploadDirectory

RESULT_TIMEOUT = 60


def test_a_function_in_every_nanny(client, n_workers):
    def look(dask_worker):
        return dask_worker.address, dask_worker.worker_address, os.getpid()

    seen = client.run(look, nanny=True)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    assert len(seen) == n_workers
    for worker, (address, own_worker, _) in seen.items():
        assert address == workers[worker]["nanny"] and own_worker == worker
    assert not {pid for _, _, pid in seen.values()} & set(client.run(os.getpid).values())
    with pytest.raises(ZeroDivisionError):
        client.run(lambda: 1 / 0, nanny=True)


class Marker(NannyPlugin):
    name = "nanny-marker"

    def setup(self, nanny):
        nanny.marked = "set up"

    def teardown(self, nanny):
        nanny.marked = "torn down"


def test_a_plugin_of_nannies(client, n_workers):
    client.register_plugin(Marker())
    assert list(client.run(lambda dask_worker: dask_worker.marked, nanny=True).values()) == ["set up"] * n_workers
    client.unregister_worker_plugin("nanny-marker", nanny=True)
    assert list(client.run(lambda dask_worker: dask_worker.marked, nanny=True).values()) == ["torn down"] * n_workers


class Failing(NannyPlugin):
    name = "failing-nanny-plugin"

    def setup(self, nanny):
        raise RuntimeError("no such luck")


def test_a_plugin_of_nannies_that_fails_says_so(client):
    with pytest.raises(RuntimeError, match="no such luck"):
        client.register_plugin(Failing())
    client.unregister_worker_plugin("failing-nanny-plugin", nanny=True)


def test_workers_start_again_with_another_environment(client, n_workers):
    before = set(client.run(os.getpid).values())
    client.register_plugin(Environ({"DASK_TEST_ENVIRON": "changed"}), name="test-environ")
    client.wait_for_workers(n_workers, timeout=60)
    assert set(client.run(lambda: os.environ.get("DASK_TEST_ENVIRON")).values()) == {"changed"}
    assert not before & set(client.run(os.getpid).values())
    client.unregister_worker_plugin("test-environ", nanny=True)


def test_a_folder_is_uploaded_to_workers(client, n_workers, tmp_path):
    package = tmp_path / "uploaded_package"
    package.mkdir()
    (package / "uploaded_in_a_folder.py").write_text("value = 77\n")
    client.register_plugin(UploadDirectory(str(package), restart_workers=True, update_path=True))
    client.wait_for_workers(n_workers, timeout=60)

    def use():
        import uploaded_in_a_folder

        return uploaded_in_a_folder.value

    assert set(client.run(use).values()) == {77}
