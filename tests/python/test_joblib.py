"""scikit-learn and joblib on the cluster, compared with the same thing computed without one."""

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC


@pytest.fixture(scope="module")
def classified():
    return make_classification(n_samples=400, n_features=10, n_informative=6, random_state=0)


def test_a_grid_search_of_scikit_learn(client, classified):
    X, y = classified
    search = GridSearchCV(SVC(random_state=0), {"C": [0.1, 1.0], "gamma": [0.01, 0.1]}, cv=3)
    alone = search.fit(X, y)
    expected, best = alone.cv_results_["mean_test_score"].copy(), alone.best_params_
    with joblib.parallel_backend("dask"):
        search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)
    assert search.best_params_ == best


def test_a_forest_and_its_validation_with_scattered_data(client, classified):
    X, y = classified
    forest = RandomForestClassifier(n_estimators=20, random_state=0)
    expected = forest.fit(X, y).predict_proba(X[:50])
    scores = cross_val_score(forest, X, y, cv=3)
    with joblib.parallel_backend("dask", scatter=[X, y]):
        np.testing.assert_allclose(forest.fit(X, y).predict_proba(X[:50]), expected)
        np.testing.assert_allclose(cross_val_score(forest, X, y, cv=3), scores)


def square_and_call_back(x):
    # Nested parallelism: these tasks submit tasks.
    return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(i, 2) for i in range(x)))


def test_nested_joblib_and_an_error_of_a_task(client):
    with joblib.parallel_backend("dask"):
        sums = joblib.Parallel()(joblib.delayed(square_and_call_back)(n) for n in range(1, 7))
        assert sums == [sum(i * i for i in range(n)) for n in range(1, 7)]
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(divmod)(1, n) for n in (2, 1, 0))
