"""What the talks of dask's first years show, on our cluster: searches for parameters, a thousand sleeping tasks, one-liners."""

import json
import random
import time

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import joblib
import numpy as np
import pytest
from distributed import as_completed, progress, wait
from sklearn.datasets import load_digits
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV, train_test_split
from sklearn.svm import SVC

DEADLINE = 300
SPACE = {"C": np.logspace(-3, 3, 7), "gamma": np.logspace(-5, 1, 7)}


@pytest.fixture(scope="module")
def client(cluster):
    with cluster.get_client() as client:
        yield client


def test_a_randomised_search_by_joblib(client):
    digits = load_digits()
    search = RandomizedSearchCV(SVC(kernel="rbf"), SPACE, n_iter=30, cv=3, random_state=1)
    with joblib.parallel_config(backend="dask"):
        search.fit(digits.data, digits.target)
    assert len(search.cv_results_["params"]) == 30 and search.best_score_ > 0.9


def test_a_search_of_delayed_calls_is_looked_at_while_it_runs(client):
    digits = load_digits()
    data = dask.delayed(train_test_split(digits.data, digits.target, random_state=1))

    @dask.delayed
    def evaluate_one(parameters, data):
        train, test, train_target, test_target = data
        return parameters, SVC(**parameters).fit(train, train_target).score(test, test_target)

    candidates = [evaluate_one(each, data) for each in ParameterSampler(SPACE, 20, random_state=1)]
    futures = client.compute(candidates)
    progress(futures, notebook=False)
    next(as_completed(futures))
    partial = client.gather([future for future in futures if future.done()])
    assert partial and all(0 <= score <= 1 for _, score in partial)
    assert len(client.gather(futures)) == 20


def test_a_thousand_sleeping_tasks(client):
    chance = random.Random(1)
    futures = client.map(time.sleep, [chance.random() / 100 for _ in range(1000)], pure=False)
    wait(futures, timeout=DEADLINE)
    assert {future.status for future in futures} == {"finished"}


def test_one_liners(client, tmp_path):
    for part in range(3):
        records = [json.dumps({"name": name, "value": part}) for name in ["ada"] * 5 + ["bob"] * 3 + ["eve"]]
        (tmp_path / f"{part}.json").write_text("\n".join(records) + "\n")
        (tmp_path / f"{part}.csv").write_text("name,value\nada,1\nbob,2\nada,3\n")
    bag = db.read_text(str(tmp_path / "*.json")).map(json.loads).pluck("name").frequencies().topk(2, key=lambda pair: pair[1])
    assert bag.compute() == [("ada", 15), ("bob", 9)]
    _, singular, _ = da.linalg.svd(da.ones((2000, 20), chunks=(500, 20)))
    assert singular.compute()[0] == pytest.approx(200.0)
    means = dd.read_csv(str(tmp_path / "*.csv")).groupby("name").value.mean().compute()
    assert means.to_dict() == {"ada": 2.0, "bob": 2.0}
    squares = [dask.delayed(pow)(n, 2) for n in range(50)]
    assert dask.delayed(sum)(squares).compute() == sum(n * n for n in range(50))
    futures = [client.submit(pow, n, 3) for n in range(50)]
    assert client.submit(sum, futures).result(timeout=DEADLINE) == sum(n**3 for n in range(50))
