"""Programs of libraries that build on `dask.distributed`, compared with the same thing computed without a cluster.

These need packages that the other tests do not; `.ci/run libraries` installs them.
"""

import dask
import dask.array as da
import dask.dataframe as dd
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import xgboost
from dask_ml.cluster import KMeans
from dask_ml.linear_model import LinearRegression
from dask_ml.metrics import accuracy_score
from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV
from dask_ml.preprocessing import StandardScaler
from dask_ml.wrappers import Incremental, ParallelPostFit
from distributed import wait
from sklearn import linear_model, preprocessing
from sklearn.datasets import make_blobs, make_classification
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC
from xgboost import dask as dxgb


@pytest.fixture(scope="module")
def classified():
    return make_classification(n_samples=1200, n_features=10, n_informative=6, random_state=0)


@pytest.fixture(scope="module")
def chunked(classified):
    X, y = classified
    return da.from_array(X, chunks=(300, 10)), da.from_array(y, chunks=300)


# -- dask-ml ----------------------------------------------------------------------------------------------------------


def test_dask_ml_scales_as_scikit_learn_does(client, classified, chunked):
    X, _ = classified
    scaler = StandardScaler().fit(chunked[0])
    expected = preprocessing.StandardScaler().fit(X)
    np.testing.assert_allclose(scaler.mean_, expected.mean_)
    np.testing.assert_allclose(scaler.transform(chunked[0]).compute(), expected.transform(X))


def test_dask_ml_finds_the_clusters(client):
    X, labels = make_blobs(n_samples=1000, centers=[[0, 0], [20, 20], [-20, 20]], random_state=0)
    found = KMeans(n_clusters=3, random_state=0).fit(da.from_array(X, chunks=(250, 2)))
    got = found.labels_.compute()
    # The same parts, by whatever number.
    assert {(a, b) for a, b in zip(labels, got)} == {(a, dict(zip(labels, got))[a]) for a in set(labels)}
    centers = found.cluster_centers_[[dict(zip(labels, got))[label] for label in range(3)]]
    np.testing.assert_allclose(centers, [X[labels == label].mean(axis=0) for label in range(3)])


def test_dask_ml_fits_block_by_block(client, classified, chunked):
    X, y = classified
    Xd, yd = chunked
    model = Incremental(SGDClassifier(random_state=0, tol=1e-3), shuffle_blocks=False)
    model.fit(Xd, yd, classes=[0, 1])
    alone = SGDClassifier(random_state=0, tol=1e-3)
    for start in range(0, 1200, 300):
        alone.partial_fit(X[start : start + 300], y[start : start + 300], classes=[0, 1])
    np.testing.assert_allclose(model.estimator_.coef_, alone.coef_)
    assert accuracy_score(yd, model.predict(Xd)) == pytest.approx(alone.score(X, y))


def test_dask_ml_predicts_in_parallel(client, classified, chunked):
    X, y = classified
    model = ParallelPostFit(linear_model.LogisticRegression()).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(chunked[0]).compute(), model.estimator.predict_proba(X))


def test_dask_ml_fits_a_linear_model(client):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 4))
    y = X @ [1.0, -2.0, 0.5, 3.0] + 4.0
    model = LinearRegression(solver="lbfgs", C=1e9).fit(da.from_array(X, chunks=(200, 4)), da.from_array(y, chunks=200))
    np.testing.assert_allclose(model.coef_, [1.0, -2.0, 0.5, 3.0], atol=1e-3)
    assert model.intercept_ == pytest.approx(4.0, abs=1e-3)


def test_dask_ml_searches_a_grid(client, classified):
    X, y = classified
    grid = {"C": [0.1, 1.0, 10.0]}
    expected = GridSearchCV(SVC(random_state=0), grid, cv=3).fit(X, y)
    search = DaskGridSearchCV(SVC(random_state=0), grid, cv=3).fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert search.best_params_ == expected.best_params_


# -- gradient boosting ------------------------------------------------------------------------------------------------


def test_xgboost_trains_and_predicts(client, classified, chunked):
    X, y = classified
    dtrain = dxgb.DaskDMatrix(client, *chunked)
    options = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "tree_method": "hist"}
    output = dxgb.train(client, options, dtrain, num_boost_round=15, evals=[(dtrain, "train")])
    history = output["history"]["train"]["logloss"]
    assert len(history) == 15 and history[-1] < history[0]
    predicted = dxgb.predict(client, output, chunked[0]).compute()
    # What the cluster computes with the model is what the model computes by itself.
    np.testing.assert_allclose(predicted, output["booster"].predict(xgboost.DMatrix(X)), rtol=1e-5)
    alone = xgboost.train(options, xgboost.DMatrix(X, y), num_boost_round=15)
    agreed = (predicted > 0.5) == (alone.predict(xgboost.DMatrix(X)) > 0.5)
    assert agreed.mean() > 0.95


def test_xgboost_in_the_manner_of_scikit_learn(client, classified, chunked):
    X, y = classified
    model = dxgb.DaskXGBClassifier(n_estimators=20, max_depth=3, early_stopping_rounds=5)
    model.client = client
    model.fit(*chunked, eval_set=[chunked])
    assert ((model.predict(chunked[0]).compute() == y).mean()) > 0.9
    frame = dd.from_pandas(pd.DataFrame(X, columns=[f"f{i}" for i in range(10)]), npartitions=3)
    regressor = dxgb.DaskXGBRegressor(n_estimators=5)
    regressor.client = client
    regressor.fit(frame, frame.f0 * 2)
    assert np.corrcoef(regressor.predict(frame).compute(), X[:, 0])[0, 1] > 0.9


def test_lightgbm_trains_and_predicts(client, classified, chunked):
    X, y = classified
    model = lightgbm.DaskLGBMClassifier(client=client, n_estimators=20, num_leaves=8, verbose=-1).fit(*chunked)
    predicted = model.predict(chunked[0]).compute()
    np.testing.assert_array_equal(predicted, model.to_local().predict(X))
    assert (predicted == y).mean() > 0.8


# -- xarray -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    times = pd.date_range("2001-01-01", periods=120)
    weather = xr.Dataset(
        {"temperature": (("time", "x", "y"), rng.normal(10, 5, (120, 12, 8))), "rain": (("time", "x"), rng.random((120, 12)))},
        coords={"time": times, "x": np.arange(12), "y": np.arange(8)},
    )
    encoding = {"temperature": {"chunks": (20, 12, 8)}, "rain": {"chunks": (20, 12)}}
    weather.to_zarr(tmp_path / "weather.zarr", encoding=encoding)
    return weather, tmp_path


def test_xarray_opens_groups_and_writes(client, stored):
    alone, folder = stored
    weather = xr.open_zarr(folder / "weather.zarr", chunks={})
    monthly = weather.groupby("time.month").mean()
    xr.testing.assert_allclose(monthly.compute(), alone.groupby("time.month").mean())
    held = weather.chunk({"time": -1, "x": 4}).persist()
    wait(held)
    anomaly = held.groupby("time.month") - held.groupby("time.month").mean()
    anomaly.to_zarr(folder / "anomaly.zarr")
    written = xr.open_zarr(folder / "anomaly.zarr").compute()
    xr.testing.assert_allclose(written, alone.groupby("time.month") - alone.groupby("time.month").mean())


def test_xarray_resamples_rolls_and_maps_blocks(client, stored):
    alone, folder = stored
    weather = xr.open_zarr(folder / "weather.zarr", chunks={})
    xr.testing.assert_allclose(weather.resample(time="W").mean().compute(), alone.resample(time="W").mean())
    xr.testing.assert_allclose(weather.rain.rolling(time=7).mean().compute(), alone.rain.rolling(time=7).mean())
    doubled = weather.map_blocks(lambda block: block * 2)
    xr.testing.assert_allclose(doubled.compute(), alone * 2)
    spread = xr.apply_ufunc(lambda v: v.std(axis=-1), weather.temperature, input_core_dims=[["y"]], dask="parallelized")
    np.testing.assert_allclose(spread.compute(), alone.temperature.std("y"))


def test_xarray_rechunks_peer_to_peer(client, stored):
    alone, folder = stored
    with dask.config.set({"array.rechunk.method": "p2p", "optimization.fuse.active": False}):
        weather = xr.open_zarr(folder / "weather.zarr", chunks={"time": 20})
        by_place = weather.temperature.chunk({"time": -1, "x": 3, "y": 2})
        xr.testing.assert_allclose(by_place.quantile(0.9, "time").compute(), alone.temperature.quantile(0.9, "time"))


def test_a_delayed_write_of_xarray(client, stored):
    alone, folder = stored
    weather = xr.open_zarr(folder / "weather.zarr", chunks={"time": 40})
    later = (weather * 3).to_zarr(folder / "later.zarr", compute=False)
    future = client.compute(later)
    wait(future)
    assert future.status == "finished"
    xr.testing.assert_allclose(xr.open_zarr(folder / "later.zarr").compute(), alone * 3)
