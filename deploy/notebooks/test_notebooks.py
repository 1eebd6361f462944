"""What the notebooks of dask's image do (`04-dask-array`, `05-nyc-taxi`), cell by cell in a kernel, on our cluster.

The taxi rides are made up here: the originals are in a bucket. Cells are written anew; what each asks of dask is the same.
"""

import random

import nbformat
import pytest
from nbclient import NotebookClient

# Seconds a cell may take.
CELL_TIMEOUT = 300
RIDES, MONTHS = 2_000, 3

ARRAY = [
    "from dask.distributed import Client, progress\nc = Client()\nc",
    "import dask.array as da\nx = da.random.random(size=(4000, 4000), chunks=(500, 500))\nx",
    "x = x.persist()\nprogress(x)",
    "x.sum().compute()",
    "x.mean(axis=0).compute()",
    "x[x < 0] = 0\nx[x > x.mean(axis=0)] = 1\ny = x + x.T\nda.diag(y).compute()",
]
TAXI = [
    "import dask\nfrom dask.distributed import Client, progress\nclient = Client()\nclient",
    "import dask.dataframe as dd\ndf = dd.read_csv('rides_*.csv', parse_dates=['tpep_pickup_datetime', 'tpep_dropoff_datetime'])",
    "df = df.persist()\nprogress(df)",
    "df",
    "df.dtypes",
    "df.head()",
    "%time len(df)",
    "%time df.passenger_count.sum().compute()",
    "df.groupby(df.passenger_count).trip_distance.mean().compute()",
    "df2 = df[(df.tip_amount > 0) & (df.fare_amount > 0)]\ndf2['tip_fraction'] = df2.tip_amount / df2.fare_amount",
    "pickup = df2.tpep_pickup_datetime.dt\n"
    "dayofweek = df2.groupby(pickup.dayofweek).tip_fraction.mean()\n"
    "hour = df2.groupby(pickup.hour).tip_fraction.mean()\n"
    "dayofweek, hour = dask.persist(dayofweek, hour)\nprogress(dayofweek, hour)",
    "%matplotlib inline",
    "hour.compute().plot(figsize=(10, 6), title='Tip fraction by hour')",
    "len(dayofweek.compute()), len(hour.compute())",
]


@pytest.fixture
def run(cluster, tmp_path, monkeypatch):
    """Runs cells; each cell's outputs by kind."""
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)

    def run(cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = NotebookClient(notebook, timeout=CELL_TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
        client.execute()
        return [joined(cell.outputs) for cell in notebook.cells]

    return run


def joined(outputs):
    data = {"text": ""}
    for output in outputs:
        data.update(output.get("data", {}))
        data["text"] += output.get("text", "")
    return data


def test_random_arrays(run, cluster):
    client, array, bar, total, mean, diagonal = run(ARRAY)
    assert cluster.scheduler_address in client["text/html"] and "chunks" in str(array).lower()
    assert "application/vnd.jupyter.widget-view+json" in bar, "progress is a widget"
    assert abs(float(total["text/plain"].removeprefix("np.float64(").removesuffix(")")) / 4000**2 - 0.5) < 0.01
    assert mean["text/plain"].startswith("array([") and diagonal["text/plain"].startswith("array([")


def test_taxi_rides(run, tmp_path):
    chance = random.Random(1)
    for month in range(1, MONTHS + 1):
        rows = ["tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,fare_amount,tip_amount"]
        for _ in range(RIDES):
            day, hour, passengers = chance.randint(1, 28), chance.randrange(23), chance.randint(1, 6)
            start, end = f"2015-{month:02}-{day:02} {hour:02}:05:00", f"2015-{month:02}-{day:02} {hour + 1:02}:05:00"
            rows.append(f"{start},{end},{passengers},{2 * passengers}.0,{chance.randint(5, 50)}.5,{chance.randint(0, 9)}.25")
        (tmp_path / f"rides_{month}.csv").write_text("\n".join(rows) + "\n")
    outputs = run(TAXI)
    said = [output.get("text/plain", "") for output in outputs]
    assert said[6] == str(RIDES * MONTHS) and "Wall time" in outputs[6]["text"]
    assert [line.split()[-1] for line in said[8].splitlines()[1:7]] == ["2.0", "4.0", "6.0", "8.0", "10.0", "12.0"]
    assert "tpep_pickup_datetime" in said[5] and "image/png" in outputs[12]
    assert said[13] == "(7, 23)"
