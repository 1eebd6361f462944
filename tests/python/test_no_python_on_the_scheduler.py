"""A scheduler host without Python: what needs no helper works, what needs one fails clearly."""

import operator

import dask.dataframe as dd
import pandas as pd
import pytest


def inc(x):
    return x + 1


def test_submit_map_and_get_need_no_helper(client):
    assert client.submit(inc, 1).result(timeout=60) == 2
    assert client.gather(client.map(inc, range(100))) == list(range(1, 101))
    assert client.get({"x": (operator.add, 1, 2), "y": (inc, "x")}, "y") == 4


def test_a_dataframe_graph_fails_clearly_and_harms_nothing(client):
    running = client.map(inc, range(50), pure=False)
    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 3]}), npartitions=2)
    with pytest.raises(Exception, match="(?i)python"):
        frame.a.sum().compute()
    assert client.gather(running) == list(range(1, 51))
    assert client.submit(inc, 10).result(timeout=60) == 11
