"""Graphs of dask's collections. Names and shapes follow "Runtime vs Scheduler: Analyzing Dask's Overheads" (arXiv 2010.11105)."""

import collections
import datetime

import dask
import dask.array as da
import dask.bag as db
import numpy as np
from dask import delayed
from distributed import wait


def computing(build, *small):
    """A case that computes what `build` makes of its parameters. A small one goes before, as the first brings imports with it."""

    def case(client, harness, *parameters):
        wait(client.compute(build(*small)))
        collection = build(*parameters)
        optimized = collection.optimize() if hasattr(collection, "expr") else dask.optimize(collection)[0]
        tasks = len(dict(optimized.__dask_graph__()))
        with harness.measured(tasks):
            wait(client.compute(collection))

    return case


def numpy(side, partitions):
    """A square array of SIDE, PARTITIONS a side: its sum with its transpose, sliced, a mean, a sum."""
    side, partitions = int(side), int(partitions)
    x = da.random.default_rng(0).random((side, side), chunks=side // partitions)
    y = x + x.T
    return y[::2, side // 2 :].mean(axis=1).sum()


def transpose_sum(side, partitions):
    """The sum of an array and its transpose."""
    side, partitions = int(side), int(partitions)
    x = da.ones((side, side), chunks=side // partitions)
    return (x + x.T).sum()


def svd(rows, partitions):
    """The singular values of a tall array of 20 columns."""
    x = da.random.default_rng(0).random((int(rows), 20), chunks=(int(rows) // int(partitions), 20))
    _, s, _ = da.linalg.svd(x)
    return s.sum()


def bag(count, partitions):
    """The product of a bag of COUNT numbers with itself, filtered and folded."""
    # A product of partitions: COUNT numbers in all give (COUNT / PARTITIONS)**2 pairs to each task.
    numbers = db.from_sequence(range(int(count)), npartitions=int(partitions))
    pairs = numbers.product(numbers).filter(even).map(first)
    return pairs.fold(greater)


def even(pair):
    return (pair[0] + pair[1]) % 2 == 0


def first(pair):
    return pair[0]


def greater(a, b):
    return max(a, b)


def xarray(chunk):
    """What xarray makes of monthly anomalies of air temperature, on a grid of CHUNK by CHUNK; without xarray."""
    chunk = int(chunk)
    air = da.random.default_rng(0).random((2920, 25, 53), chunks=(-1, chunk, chunk))
    months = np.arange(2920) * 12 // 2920
    means = da.stack([air[months == month].mean(axis=0) for month in range(12)])
    anomalies = da.concatenate([air[months == month] - means[month] for month in range(12)])
    return anomalies.sum()


def timeseries(days, frequency, partition):
    start = datetime.datetime(2020, 1, 1)
    end = start + datetime.timedelta(days=int(days))
    # Today's pandas wants hours in lower case and minutes as "min"; the paper's names stay.
    units = {"H": "h", "T": "min", "S": "s"}
    alias = [text[:-1] + units.get(text[-1], text[-1]) for text in (frequency, partition)]
    return dask.datasets.timeseries(start, end, freq=alias[0], partition_freq=alias[1], seed=0)


def groupby(days, frequency, partition):
    """A table of a record each FREQUENCY for DAYS, in partitions of PARTITION: means by name."""
    frame = timeseries(days, frequency, partition)
    return frame.groupby("name")[["x", "y"]].mean().sum()


def join(days, frequency, partition):
    """The same table joined with itself on its index."""
    frame = timeseries(days, frequency, partition)
    joined = frame[["x"]].join(frame[["y"]], how="inner")
    return joined.sum()


def texts(seed, count):
    generator = np.random.default_rng(seed)
    words = [f"word{i}" for i in range(500)]
    return [" ".join(generator.choice(words, 20)) for _ in range(count)]


def vectorizer(partition):
    """Reviews in partitions of PARTITION texts of 100,000, their words hashed into features; stands for Wordbatch's."""
    partition = int(partition)
    parts = [delayed(hashed)(delayed(texts)(i, partition)) for i in range(100_000 // partition)]
    return delayed(sum_of)(parts)


def hashed(lines):
    features = np.zeros(1024)
    for line in lines:
        for word in line.split():
            features[sum(word.encode()) % 1024] += 1
    return features


def sum_of(arrays):
    return np.sum(arrays, axis=0)


def wordbag(partition):
    """As vectorizer, with a dictionary of all partitions in between; stands for Wordbatch's."""
    partition = int(partition)
    parts = [delayed(texts)(i, partition) for i in range(100_000 // partition)]
    dictionary = delayed(merged)([delayed(counted)(part) for part in parts])
    return delayed(sum_of)([delayed(weighted)(part, dictionary) for part in parts])


def counted(lines):
    return collections.Counter(word for line in lines for word in line.split())


def merged(counters):
    total = sum(counters, collections.Counter())
    return {word: (index, count) for index, (word, count) in enumerate(sorted(total.items()))}


def weighted(lines, dictionary):
    features = np.zeros(len(dictionary))
    for line in lines:
        for word in line.split():
            index, count = dictionary[word]
            features[index] += 1 / count
    return features


FAMILIES = {
    "numpy": computing(numpy, 20, 2),
    "transpose_sum": computing(transpose_sum, 20, 2),
    "svd": computing(svd, 100, 2),
    "bag": computing(bag, 10, 2),
    "xarray": computing(xarray, 25),
    "groupby": computing(groupby, 1, "1H", "8H"),
    "join": computing(join, 1, "1H", "8H"),
    "vectorizer": computing(vectorizer, 50_000),
    "wordbag": computing(wordbag, 50_000),
}
