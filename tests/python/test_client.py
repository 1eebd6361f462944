"""What an unmodified client does: every test runs on our workers, on upstream's, and on a mix of both."""

import gzip
import json
import operator
import os
import time
import traceback

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from distributed import Client, as_completed, wait
from distributed.scheduler import KilledWorker

RESULT_TIMEOUT = 120


def inc(x):
    return x + 1


def add_numbers(n):
    return sum(range(n))


def test_submit(client):
    assert client.submit(add_numbers, 1000).result(timeout=RESULT_TIMEOUT) == 499500


def test_the_client_shows_its_cluster(client, n_workers):
    info = client.scheduler_info(n_workers=-1)
    assert info["type"] == "Scheduler"
    assert len(info["workers"]) == n_workers
    assert f"processes={n_workers}" in repr(client)
    assert set(client.ncores().values()) == {w["nthreads"] for w in info["workers"].values()}


def test_submit_of_a_closure_and_of_futures(client):
    offset = 10
    x = client.submit(lambda v: v + offset, 1, pure=False)
    y = client.submit(operator.mul, x, x)
    z = client.submit(sum, [x, y, 3])
    assert z.result(timeout=RESULT_TIMEOUT) == 11 + 121 + 3


def test_map_of_ten_thousand(client):
    futures = client.map(inc, range(10_000))
    assert client.gather(futures) == list(range(1, 10_001))


def test_map_with_several_iterables_and_keywords(client):
    futures = client.map(lambda a, b, c=0: a + b + c, range(50), range(50), c=7)
    assert client.gather(futures) == [2 * i + 7 for i in range(50)]


def test_get_of_a_dict(client):
    graph = {"x": 1, "y": (inc, "x"), "z": (operator.add, "y", 10)}
    assert client.get(graph, "z") == 12
    assert client.get(graph, ["y", ["z", "x"]]) == [2, [12, 1]] or client.get(graph, ["y", ["z", "x"]]) == (2, (12, 1))


def test_keys_of_every_kind(client):
    for key in ["text", 5, 2.5, ("tuple", 1), ("nested", ("deep", 0), 3)]:
        future = client.submit(inc, 1, key=key)
        assert future.result(timeout=RESULT_TIMEOUT) == 2
        del future


def test_numpy_numbers_in_keys(client):
    x = np.arange(100).reshape(10, 10)
    picked = da.from_array(x, chunks=(3, 4)).vindex[[0, 5, 9], [1, 8, 8]]
    assert any(isinstance(part, np.integer) for key in picked.__dask_graph__() for part in key)
    assert picked.compute().tolist() == x[[0, 5, 9], [1, 8, 8]].tolist()

    key = ("numbered", np.int64(3))
    assert client.get({key: (operator.neg, 5), "twice": (operator.mul, 2, key)}, "twice") == -10


def test_tasks_may_write_into_the_arrays_of_their_graph(client):
    da.ones((10, 10), chunks=5).store(np.zeros((10, 10)))

    def write(target):
        target[0] = 7
        return target

    assert client.submit(write, np.zeros(3)).result().tolist() == [7, 0, 0]


def test_delayed_load_process_summarize(client):
    @delayed
    def load(i):
        return list(range(i))

    @delayed
    def process(data):
        return [v * 2 for v in data]

    @delayed
    def summarize(parts):
        return sum(sum(part) for part in parts)

    total = summarize([process(load(i)) for i in range(40)])
    assert total.compute() == sum(2 * sum(range(i)) for i in range(40))


def test_svd_of_ones(client):
    x = da.ones((5000, 1000), chunks=(1000, 1000))
    u, s, v = da.linalg.svd(x)
    values = s.compute()
    assert values[0] == pytest.approx(np.sqrt(5000 * 1000))
    assert np.abs(values[1:]).max() < 1e-6


def test_svd_of_a_tall_random_matrix(client):
    x = da.random.default_rng(0).random((20000, 200), chunks=(2000, 200))
    u, s, v = da.linalg.svd(x)
    x, u, s, v = client.compute([x, u, s, v], sync=True)
    np.testing.assert_allclose(u @ np.diag(s) @ v, x, atol=1e-8)


def test_array_arithmetic_persist_and_rechunk(client):
    x = da.arange(100_000, chunks=10_000).persist()
    wait(x)
    y = (x.reshape(1000, 100) + 1).rechunk((100, 50)).T.sum(axis=0)
    assert y.compute().sum() == 100_000 * 99_999 // 2 + 100_000


def test_bag_over_json(client, tmp_path):
    for part in range(5):
        with gzip.open(tmp_path / f"part-{part}.json.gz", "wt") as f:
            for i in range(200):
                f.write(json.dumps({"name": f"n{i % 7}", "value": i, "ok": i % 2 == 0}) + "\n")
    records = db.read_text(str(tmp_path / "part-*.json.gz")).map(json.loads)
    top = dict(records.filter(lambda r: r["ok"]).pluck("name").frequencies().topk(3, key=1).compute())
    assert len(top) == 3 and set(top.values()) <= {70, 75}


def test_dataframe_read_csv_groupby_mean(client, tmp_path):
    rng = np.random.default_rng(1)
    frames = []
    for part in range(12):
        frame = pd.DataFrame({"id": rng.integers(0, 5, 500), "value": rng.random(500)})
        frame.to_csv(tmp_path / f"data-{part:02}.csv", index=False)
        frames.append(frame)
    expected = pd.concat(frames).groupby("id").value.mean()
    result = dd.read_csv(str(tmp_path / "data-*.csv")).groupby("id").value.mean().compute().sort_index()
    pd.testing.assert_series_equal(result, expected, check_names=False)


def test_dataframe_merge_with_task_shuffle(client):
    left = pd.DataFrame({"k": np.arange(400) % 50, "a": np.arange(400)})
    right = pd.DataFrame({"k": np.arange(50), "b": np.arange(50) * 10})
    dleft = dd.from_pandas(left, npartitions=6)
    dright = dd.from_pandas(right, npartitions=4)
    merged = dleft.merge(dright, on="k", shuffle_method="tasks").compute()
    assert len(merged) == 400
    assert (merged.b == merged.k * 10).all()


def test_dataframe_merge_with_p2p_shuffle(client):
    left = pd.DataFrame({"k": np.arange(400) % 50, "a": np.arange(400)})
    right = pd.DataFrame({"k": np.arange(50), "b": np.arange(50) * 10})
    dleft = dd.from_pandas(left, npartitions=6)
    dright = dd.from_pandas(right, npartitions=4)
    merged = dleft.merge(dright, on="k", shuffle_method="p2p").compute()
    assert len(merged) == 400
    assert (merged.b == merged.k * 10).all()


def test_as_completed(client):
    futures = client.map(lambda i: i * i, range(100), pure=False)
    assert sorted(f.result() for f in as_completed(futures)) == [i * i for i in range(100)]
    pairs = as_completed(client.map(inc, range(10)), with_results=True)
    assert sorted(result for _, result in pairs) == list(range(1, 11))


def test_scatter_and_gather_of_200_megabytes(client):
    data = np.arange(25_000_000, dtype="f8")
    future = client.scatter(data)
    total = client.submit(np.sum, future)
    assert total.result(timeout=RESULT_TIMEOUT) == data.sum()
    back = client.gather(future)
    assert back.nbytes == 200_000_000 and (back[::1_000_000] == data[::1_000_000]).all()


def test_scatter_of_a_dict_and_broadcast(client, n_workers):
    futures = client.scatter({"a": 1, "b": [2, 3]}, broadcast=True)
    assert client.gather(futures) == {"a": 1, "b": [2, 3]}
    holders = client.who_has([futures["a"]])
    assert len(list(holders.values())[0]) == n_workers


def failing(x):
    raise ValueError(f"bad value {x}")


def test_an_exception_arrives_with_its_remote_traceback(client):
    future = client.submit(failing, 7)
    with pytest.raises(ValueError, match="bad value 7") as caught:
        future.result(timeout=RESULT_TIMEOUT)
    text = "".join(traceback.format_tb(caught.value.__traceback__))
    assert "failing" in text
    dependent = client.submit(inc, future)
    with pytest.raises(ValueError, match="bad value 7"):
        dependent.result(timeout=RESULT_TIMEOUT)
    assert future.status == "error" and dependent.status == "error"


def test_cancel(client):
    slow = client.submit(time.sleep, 0.4, pure=False)
    waiting = client.submit(inc, slow, pure=False)
    client.cancel([waiting])
    assert waiting.cancelled()
    with pytest.raises(Exception):
        waiting.result(timeout=RESULT_TIMEOUT)
    slow.result(timeout=RESULT_TIMEOUT)


def test_retries(client, tmp_path):
    marker = tmp_path / "attempts"

    def flaky():
        with open(marker, "a") as f:
            f.write("x")
        if os.path.getsize(marker) < 3:
            raise RuntimeError("not yet")
        return os.path.getsize(marker)

    assert client.submit(flaky, retries=5, pure=False).result(timeout=RESULT_TIMEOUT) == 3
    os.remove(marker)
    with pytest.raises(RuntimeError, match="not yet"):
        client.submit(flaky, retries=1, pure=False).result(timeout=RESULT_TIMEOUT)


def test_retry_of_an_erred_future(client, tmp_path):
    marker = tmp_path / "ready"

    def needs_marker():
        return open(marker).read()

    future = client.submit(needs_marker, pure=False)
    wait(future)
    assert future.status == "error"
    marker.write_text("now")
    client.retry([future])
    assert future.result(timeout=RESULT_TIMEOUT) == "now"


def test_joblib_randomised_search(client):
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.model_selection import RandomizedSearchCV
    from sklearn.svm import SVC

    digits = load_digits()
    space = {"C": np.logspace(-3, 3, 7), "gamma": np.logspace(-5, 0, 6)}
    search = RandomizedSearchCV(SVC(), space, n_iter=6, cv=3, random_state=0)
    with joblib.parallel_config(backend="dask"):
        search.fit(digits.data[:400], digits.target[:400])
    assert search.best_score_ > 0.8


def test_priorities_workers_and_resources_are_accepted(client):
    worker = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]
    future = client.submit(lambda: 1, workers=[worker], priority=10, pure=False)
    assert future.result(timeout=RESULT_TIMEOUT) == 1
    assert list(client.who_has([future]).values())[0] == (worker,) or list(client.who_has([future]).values())[0] == [worker]


def test_run_on_every_worker(client, n_workers):
    assert list(client.run(lambda: 42).values()) == [42] * n_workers


def test_two_clients_share_a_key(client, address):
    with Client(address) as other:
        a = client.submit(inc, 100, key="shared-key")
        b = other.submit(inc, 100, key="shared-key")
        assert a.result(timeout=RESULT_TIMEOUT) == 101
        del a
        assert b.result(timeout=RESULT_TIMEOUT) == 101


def test_intermediate_results_are_forgotten(client):
    futures = client.map(inc, range(20), pure=False)
    total = client.submit(sum, futures)
    assert total.result(timeout=RESULT_TIMEOUT) == sum(range(1, 21))
    del futures, total
    deadline = time.monotonic() + 20
    while any(client.has_what().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(client.has_what().values())


def test_versions_agree(client):
    versions = client.get_versions(check=False)
    assert set(versions) == {"scheduler", "workers", "client"}
    everywhere = [versions["scheduler"], *versions["workers"].values(), versions["client"]]
    assert {each["packages"]["distributed"] for each in everywhere} == {distributed.__version__}


def test_fire_and_forget(client, tmp_path):
    from distributed import fire_and_forget

    marker = tmp_path / "fired"
    fire_and_forget(client.submit(lambda: marker.write_text("x"), pure=False))
    deadline = time.monotonic() + 30
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marker.read_text() == "x"
