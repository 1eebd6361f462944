"""The Python half of the demo: an unmodified `dask.distributed` client on the cluster whose address is given.

Prints one line for each thing it did, and ends with a non-zero status if a result is wrong.
"""

import gzip
import json
import os
import sys
import tempfile
import time

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask import delayed
from distributed import Client, as_completed


def inc(x):
    return x + 1


def check(name, condition, shown):
    seconds = time.perf_counter() - check.since
    print(f"  {'ok   ' if condition else 'WRONG'} {name:<34} {shown}  ({seconds:.2f} s)", flush=True)
    check.since = time.perf_counter()
    check.wrong += not condition


check.wrong = 0


def main(address):
    client = Client(address, timeout="30s")
    print(f"  {client!r}", flush=True)
    check.since = time.perf_counter()

    total = client.submit(lambda n: sum(range(n)), 1000).result()
    check("submit", total == 499500, total)

    futures = client.map(inc, range(5000))
    done = 0
    for done, _ in enumerate(as_completed(futures), 1):
        if done % 250 == 0 and sys.stderr.isatty():
            print(f"\r        map {done}/5000", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr)
    check("map and as_completed", sum(client.gather(futures)) == sum(range(1, 5001)), f"{done} futures")
    del futures

    load = delayed(lambda i: list(range(i)))
    process = delayed(lambda part: [2 * v for v in part])
    summarize = delayed(lambda parts: sum(map(sum, parts)))
    answer = summarize([process(load(i)) for i in range(100)]).compute()
    check("delayed load/process/summarize", answer == sum(2 * sum(range(i)) for i in range(100)), answer)

    u, s, v = da.linalg.svd(da.ones((5000, 1000), chunks=(1000, 1000)))
    largest = float(s.compute()[0])
    check("da.linalg.svd of ones(5000, 1000)", abs(largest - np.sqrt(5e6)) < 1e-6, f"{largest:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        for part in range(8):
            with gzip.open(os.path.join(folder, f"{part}.json.gz"), "wt") as f:
                f.writelines(json.dumps({"name": f"n{i % 5}", "ok": i % 3 == 0}) + "\n" for i in range(1000))
        records = db.read_text(os.path.join(folder, "*.json.gz")).map(json.loads)
        top = records.filter(lambda r: r["ok"]).pluck("name").frequencies().topk(2, key=1).compute()
        check("bag over json.gz, topk", len(top) == 2 and top[0][1] >= top[1][1], top)

        rng = np.random.default_rng(0)
        frames = []
        for part in range(10):
            frame = pd.DataFrame({"id": rng.integers(0, 3, 1000), "value": rng.random(1000)})
            frame.to_csv(os.path.join(folder, f"{part}.csv"), index=False)
            frames.append(frame)
        mean = dd.read_csv(os.path.join(folder, "*.csv")).groupby("id").value.mean().compute().sort_index()
        expected = pd.concat(frames).groupby("id").value.mean()
        check("dataframe read_csv, groupby mean", np.allclose(mean, expected), mean.round(4).to_dict())

    data = np.arange(5_000_000, dtype="f8")
    far = client.scatter(data)
    check("scatter 40 MB and sum there", client.submit(np.sum, far).result() == data.sum(), f"{data.sum():.0f}")

    try:
        client.submit(lambda: 1 / 0).result()
        check("an exception comes back", False, "none came")
    except ZeroDivisionError as error:
        check("an exception comes back", True, repr(error))

    client.close()
    return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
