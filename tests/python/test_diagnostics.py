"""What a user looks at: progress, task streams, reports, profiles, stories, dumps, spans."""

import gzip
import time

import msgpack
import pytest
from dask import delayed
from distributed import (
    Event,
    get_task_metadata,
    get_task_stream,
    get_worker,
    performance_report,
    progress,
    span,
    wait,
)
from distributed.diagnostics.eventstream import eventstream
from distributed.diagnostics.progress_stream import progress_stream
from distributed.diagnostics.progressbar import MultiProgressBar, TextProgressBar
from waiting import RESULT_TIMEOUT, eventually


def inc(x):
    return x + 1


def slowinc(x, delay=0.02):
    time.sleep(delay)
    return x + 1


def fail(x):
    raise ValueError(f"bad value {x}")


def test_progress_is_drawn_until_all_is_done(client, capsys):
    futures = client.map(slowinc, range(20), pure=False)
    total = client.submit(sum, futures)
    progress(total, notebook=False)
    # The bar has a connection and a thread of its own: the client's own may hear of it a moment later.
    wait(total, timeout=5)
    assert total.status == "finished"
    drawn = capsys.readouterr().out
    assert "100% Completed" in drawn


def test_a_progress_bar_counts_tasks(client):
    futures = client.map(slowinc, range(10), pure=False)
    total = client.submit(sum, futures)
    bar = TextProgressBar([total], interval="20ms")
    assert bar._last_response == {"all": 11, "remaining": 0, "status": "finished"}
    done = TextProgressBar([total], complete=False)
    assert done._last_response["status"] == "finished" and done._last_response["remaining"] == 0
    assert TextProgressBar([total], complete=True)._last_response["all"] >= 1


def test_a_progress_bar_ends_with_an_error(client):
    from distributed.core import clean_exception

    future = client.submit(fail, 3, pure=False)
    bar = TextProgressBar([future])
    assert bar.status == "error"
    _, exception, _ = clean_exception(bar._last_response["exception"])
    assert isinstance(exception, ValueError) and "bad value 3" in str(exception)


def test_progress_of_several_kinds_of_tasks(client):
    async def follow(group_by):
        middle = [client.submit(slowinc, i, pure=False, key=f"left-{i}-{group_by}") for i in range(4)]
        end = client.submit(lambda *args: sum(args), *middle, key=f"right-{group_by}")
        bar = MultiProgressBar([end], complete=True, group_by=group_by, interval=0.02)
        bar._draw_bar = lambda **kwargs: None
        await bar.listen()
        return bar._last_response

    by_prefix = client.sync(follow, "prefix")
    assert by_prefix["status"] == "finished"
    assert sum(by_prefix["all"].values()) == 5 and not any(by_prefix["remaining"].values())
    assert by_prefix["all"]["left"] == 4
    by_span = client.sync(follow, "spans")
    assert sum(by_span["all"].values()) == 5
    assert {name for name, _ in by_span["all"]} == {"default"}


def test_progress_of_everything_as_a_stream(client, address):
    futures = client.map(inc, range(7), pure=False, key="streamed")
    wait(futures)

    async def look():
        comm = await progress_stream(address, 0.02)
        try:
            return await comm.read()
        finally:
            await comm.close()

    counts = client.sync(look)
    prefix = futures[0].key.rpartition("-")[0] or "streamed"
    assert set(counts) == {"all", "nbytes", "memory", "erred", "released", "processing", "queued"}
    assert counts["all"]["streamed"] == 7 and counts["memory"]["streamed"] == 7, prefix
    assert counts["nbytes"]["streamed"] > 0


def test_finished_tasks_as_a_stream_of_events(client, address):
    async def look():
        comm = await eventstream(address, 0.02)
        try:
            assert len(await comm.read()) == 0
            future = client.submit(inc, 1, pure=False, key="in-the-stream")
            failed = client.submit(fail, 1, pure=False, key="in-the-stream-erred")
            rows = []
            while len(rows) < 2:
                rows.extend(await comm.read())
            del future, failed
            return rows
        finally:
            await comm.close()

    rows = {row["key"]: row for row in client.sync(look)}
    assert set(rows) == {"in-the-stream", "in-the-stream-erred"}
    row = rows["in-the-stream"]
    assert row["status"] == "OK" and row["typename"] == "int" and row["startstops"]
    assert row["worker"] in client.scheduler_info(n_workers=-1)["workers"]


def test_the_task_stream_of_a_block(client):
    with get_task_stream(plot=False) as stream:
        wait(client.map(inc, range(5), pure=False))
    assert len(stream.data) >= 5
    for row in stream.data:
        assert row["worker"] in client.scheduler_info(n_workers=-1)["workers"]
        assert {"key", "startstops", "thread", "type", "nbytes", "status"} <= set(row)
        assert any(part["action"] == "compute" for part in row["startstops"])
    assert len(client.get_task_stream(count=3)) == 3
    assert len(client.get_task_stream(start="1 hour")) >= 5


def test_the_metadata_of_tasks_in_a_block(client):
    def note(x):
        worker = get_worker()
        return x

    with get_task_metadata() as tasks:
        futures = client.map(note, range(3), pure=False)
        failed = client.submit(fail, 1, pure=False)
        wait([*futures, failed])
    assert set(tasks.metadata) == {future.key for future in [*futures, failed]}
    assert {tasks.state[future.key] for future in futures} == {"memory"}
    assert tasks.state[failed.key] == "erred"


def test_a_performance_report(client, tmp_path):
    path = tmp_path / "report.html"
    with performance_report(filename=str(path)):
        wait(client.map(slowinc, range(10), pure=False, key="reported"))
    text = path.read_text()
    assert text.lstrip().lower().startswith("<!doctype html>") and "Dask Performance Report" in text
    assert "slowinc" in text or "reported" in text
    assert "test_a_performance_report" in text or "performance_report(filename" in text


def test_the_call_stack_of_a_running_task(client):
    def stand_still():
        Event("stack-blocker").wait(timeout=RESULT_TIMEOUT)

    future = client.submit(stand_still, pure=False)
    eventually(
        lambda: any("stand_still" in "".join(stacks.get(future.key, ())) for stacks in client.call_stack().values()),
        "the task's stack",
    )
    (stacks,) = client.call_stack([future]).values()
    assert "stand_still" in "".join(stacks[future.key])
    Event("stack-blocker").set()
    wait(future)
    Event("stack-blocker").clear()


def test_profiles_have_the_frames_of_tasks(client, tmp_path):
    def busy_beaver(seconds):
        end = time.time() + seconds
        while time.time() < end:
            sum(range(1000))

    began = time.time()
    wait(client.map(busy_beaver, [0.4, 0.4], pure=False))

    def names(tree):
        yield tree["description"]["name"]
        for child in tree["children"].values():
            yield from names(child)

    eventually(lambda: "busy_beaver" in set(names(client.profile(start=began - 5))), "the frame in the profile")
    # A worker adds up what it sampled of a key by itself, and not at the same moment.
    eventually(lambda: client.profile(key="busy_beaver")["count"] > 0, "the frame in the profile of the key")
    assert client.profile(key="busy_beaver")["identifier"] == "root"
    by_worker = client.profile(key="busy_beaver", merge_workers=False)
    assert set(by_worker) <= set(client.scheduler_info(n_workers=-1)["workers"])
    assert client.profile(scheduler=True)["identifier"] == "root"
    client.profile(filename=str(tmp_path / "profile.html"), plot="save")
    assert "<html" in (tmp_path / "profile.html").read_text()


def test_the_story_of_a_key(client):
    future = client.submit(inc, 1, key="storied", pure=False)
    future.result(timeout=RESULT_TIMEOUT)
    story = client.story("storied")
    finishes = [row[3] if len(row) > 6 else row[2] for row in story]
    assert "memory" in finishes or any("memory" in str(row) for row in story)
    sources = {row[0] if isinstance(row, (tuple, list)) else None for row in story}
    assert len(story) >= 3, sources


def test_a_dump_of_the_cluster(client, tmp_path, n_workers):
    future = client.submit(inc, 1, key="dumped")
    future.result(timeout=RESULT_TIMEOUT)
    client.dump_cluster_state(str(tmp_path / "here"))
    with gzip.open(tmp_path / "here.msgpack.gz") as file:
        state = msgpack.unpack(file, strict_map_key=False)
    assert set(state) == {"scheduler", "workers", "versions"}
    assert len(state["workers"]) == n_workers
    assert "dumped" in state["scheduler"]["tasks"]
    client.dump_cluster_state(f"file://{tmp_path}/there", write_from_scheduler=True)
    with gzip.open(tmp_path / "there.msgpack.gz") as file:
        state = msgpack.unpack(file, strict_map_key=False)
    assert "dumped" in state["scheduler"]["tasks"]
    client.dump_cluster_state(str(tmp_path / "text"), format="yaml")
    assert "dumped" in (tmp_path / "text.yaml").read_text()
    with pytest.raises(ValueError, match="Unsupported format"):
        client.dump_cluster_state(f"file://{tmp_path}/other", write_from_scheduler=True, format="json")


def test_tasks_know_their_span(client):
    import dask

    def look():
        return dask.get_annotations().get("span")

    with span("my workflow"):
        with span("step one") as span_id:
            found = client.submit(look, pure=False).result(timeout=RESULT_TIMEOUT)
    assert tuple(found["name"]) == ("my workflow", "step one")
    assert found["ids"][-1] == span_id
    # Of another group: a group belongs to the span of its first task.
    assert client.submit(look, pure=False, key="outside").result(timeout=RESULT_TIMEOUT) is None


def test_a_delayed_graph_shows_its_progress(client, capsys):
    total = delayed(sum)([delayed(slowinc)(i) for i in range(5)]).persist()
    progress(total, notebook=False)
    assert total.compute() == 15
