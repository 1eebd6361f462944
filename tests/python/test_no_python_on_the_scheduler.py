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


def test_diagnostics_need_no_python(client, tmp_path):
    from distributed import get_task_metadata, get_task_stream, performance_report, wait
    from distributed.diagnostics.progressbar import TextProgressBar

    with performance_report(filename=str(tmp_path / "report.html")), get_task_stream() as stream:
        with get_task_metadata() as tasks:
            futures = client.map(inc, range(10), pure=False)
            assert TextProgressBar(futures)._last_response == {"all": 10, "remaining": 0, "status": "finished"}
            wait(futures)
    assert set(tasks.state.values()) == {"memory"} and len(stream.data) >= 10
    assert "number of tasks: 10" in (tmp_path / "report.html").read_text()


def test_what_needs_python_says_so(client):
    from distributed import SchedulerPlugin

    class Plugin(SchedulerPlugin):
        name = "needs-python"

    for call in (lambda: client.run_on_scheduler(inc, 1), lambda: client.register_plugin(Plugin())):
        with pytest.raises(RuntimeError, match="--python or DASK_PYTHON"):
            call()
    with pytest.raises(ValueError, match="needs-python"):
        client.unregister_scheduler_plugin("needs-python")
    assert client.submit(inc, 1).result(timeout=60) == 2
