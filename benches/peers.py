#!/usr/bin/env python3
"""Trivial tasks on a cluster of ours, of HyperQueue and of Ray, in turn, with the same cores: medians and ratios.

    python3 -m venv peers && peers/bin/pip install hyperqueue ray distributed==2026.8.0
    cargo build --release -p dask -p dask-benches
    peers/bin/python benches/peers.py --binaries target/release

Each measurement is a process of its own, which starts a cluster, runs some tasks that do not count, and then those that do.

- native: `#[dask::task]` functions, one worker, over the loopback interface (`native-load throughput --loopback`)
- python: Python functions from a client of dask.distributed on our dask-scheduler and dask-worker
- ray: Python functions, `ray.remote` with `num_cpus`
- hyperqueue: programs; its tasks are processes (`true`), without output files
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TASKS = {"native": 100_000, "python": 10_000, "ray": 10_000, "hyperqueue": 1_000}
WARM_UP = 200


def increment(n):
    return n + 1


def native(tasks, threads, binaries):
    command = [os.path.join(binaries, "native-load"), "throughput", "--tasks", str(tasks), "--threads", str(threads), "--loopback"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(said.split(" tasks/s")[0].split()[-1])


def python(tasks, threads, binaries):
    from distributed import Client, wait

    with tempfile.TemporaryDirectory() as home:
        told = os.path.join(home, "scheduler.json")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        scheduler = [os.path.join(binaries, "dask-scheduler"), "--host", "127.0.0.1", "--port", "0", "--scheduler-file", told]
        worker = [os.path.join(binaries, "dask-worker"), "--scheduler-file", told, "--nthreads", str(threads)]
        worker += ["--python", sys.executable, "--no-nanny"]
        started = [subprocess.Popen([*command, "--no-dashboard"], **quiet) for command in (scheduler, worker)]
        try:
            while not os.path.exists(told) or not os.path.getsize(told):
                time.sleep(0.01)
            with Client(scheduler_file=told) as client:
                client.wait_for_workers(1)
                wait(client.map(increment, range(WARM_UP)))
                return rate(tasks, lambda: wait(client.map(increment, range(tasks, 2 * tasks))))
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def ray(tasks, threads, binaries):
    import ray

    ray.init(num_cpus=threads, include_dashboard=False, log_to_driver=False, logging_level="error")
    remote = ray.remote(increment)
    ray.get([remote.remote(n) for n in range(WARM_UP)])
    found = rate(tasks, lambda: ray.get([remote.remote(n) for n in range(tasks)]))
    ray.shutdown()
    return found


def hyperqueue(tasks, threads, binaries):
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    def run(client, count):
        job = Job()
        for _ in range(count):
            job.program(["true"], stdout=None, stderr=None)
        client.wait_for_jobs([client.submit(job)])

    with LocalCluster(worker_config=WorkerConfig(cores=threads)) as cluster:
        client = cluster.client()
        run(client, WARM_UP)
        return rate(tasks, lambda: run(client, tasks))


def rate(tasks, work):
    since = time.perf_counter()
    work()
    return tasks / (time.perf_counter() - since)


CASES = {"native": native, "python": python, "ray": ray, "hyperqueue": hyperqueue}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", default="target/release", help="where our programs are")
    parser.add_argument("--threads", type=int, default=2, help="cores for each")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(CASES[args.one](TASKS[args.one], args.threads, os.path.abspath(args.binaries))))
        # Ray's and HyperQueue's threads need not end for this process to.
        sys.stdout.flush()
        os._exit(0)
    cases = args.cases.split(",")
    found = {case: [] for case in cases}
    for round in range(args.repeat):
        for case in cases:
            command = [sys.executable, __file__, "--one", case, "--binaries", args.binaries, "--threads", str(args.threads)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[case].append(json.loads(said.strip().splitlines()[-1]))
            print(f"round {round + 1}: {case} {found[case][-1]:,.0f} tasks/s", file=sys.stderr, flush=True)
    medians = {case: statistics.median(rates) for case, rates in found.items()}
    print(f"| case | tasks | tasks/s, median of {args.repeat} | least and most |" + "".join(f" {peer} |" for peer in cases))
    print("|---|--:|--:|--:|" + "--:|" * len(cases))
    for case in cases:
        ratios = "".join(f" {medians[case] / medians[peer]:.2f} |" for peer in cases)
        print(f"| {case} | {TASKS[case]:,} | {medians[case]:,.0f} | {min(found[case]):,.0f} to {max(found[case]):,.0f} |{ratios}")


if __name__ == "__main__":
    main()
