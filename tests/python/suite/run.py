#!/usr/bin/env python3
"""dask's own test-suite on a cluster of ours and on one of upstream's, and how the two compare.

    tests/python/suite/run.py run --on upstream            # hours on two cores; goes on where an earlier run ended
    tests/python/suite/run.py run --on ours --part array
    tests/python/suite/run.py run --on upstream --failed   # minutes: only what failed on ours, which settles the comparison
    tests/python/suite/run.py compare                      # fails if a test fails on ours alone without a known cause
    tests/python/suite/run.py sample                       # a minute: what .ci/run does

The tests come from dask's source distribution, which is fetched into `target/suite/`, as are the Python environment, the
binaries' build and the outcomes (`ours/` and `upstream/`, one JSON object a line). Needs python3 and cargo.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tarfile

VERSION = "2026.8.0"
# pandas 3.1 deprecates what this dask does, and dask's tests turn warnings into errors.
REQUIREMENTS = [
    f"dask[complete]=={VERSION}",
    f"distributed=={VERSION}",
    "pandas<3.1",
    *("pytest pytest-mock pytest-rerunfailures pytest-timeout lz4 zstandard scipy scikit-learn sqlalchemy".split()),
    *("xarray zarr h5py tables fastavro sparse cachey crick jsonschema matplotlib graphviz".split()),
]
PARTS = {
    "delayed": ["dask/tests/test_delayed.py"],
    "bag": ["dask/bag"],
    "tests": ["dask/tests", "--ignore", "dask/tests/test_delayed.py"],
    "array": ["dask/array"],
    "dataframe": ["dask/dataframe"],
}
ROUNDS = 16
TEST_SECONDS_MAX = 300
RATIO_MIN = 0.99

SUITE = pathlib.Path(__file__).resolve().parent
REPOSITORY = SUITE.parents[2]
LISTS = REPOSITORY / "tests" / "suite"
HOME = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "suite"


def call(*command, **options):
    print("+", shlex.join(map(str, command)), file=sys.stderr, flush=True)
    subprocess.run([str(part) for part in command], check=True, **options)


def environment():
    """The interpreter of an environment that holds the requirements."""
    name = hashlib.sha256(" ".join(REQUIREMENTS).encode()).hexdigest()[:16]
    home = HOME / f"python-{name}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        call(sys.executable, "-m", "venv", "--clear", home)
        call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS)
        (home / "ready").touch()
    return python


def tests(python):
    """The folder of dask's source distribution."""
    folder = HOME / f"dask-{VERSION}"
    if not folder.exists():
        pip = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        call(*pip, "--no-binary", ":all:", "--no-deps", "--dest", HOME, f"dask=={VERSION}")
        with tarfile.open(HOME / f"dask-{VERSION}.tar.gz") as archive:
            archive.extractall(HOME, filter="data")
    return folder


def commands(on, python, binaries):
    """What starts a scheduler and a worker."""
    if on == "upstream":
        return [f"{python} -m distributed.cli.dask_{role}" for role in ("scheduler", "worker")]
    if binaries is None:
        call("cargo", "build", "--release", "-p", "dask", "--bins", cwd=REPOSITORY)
        binaries = HOME.parent / "release"
    return [shlex.quote(str(binaries / f"dask-{role}")) for role in ("scheduler", "worker")]


def pytest(on, binaries, outcomes, arguments):
    python = environment()
    folder = tests(python)
    scheduler, worker = commands(on, python, binaries)
    outcomes.parent.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["-o", "timeout_method=signal", "--timeout", TEST_SECONDS_MAX, "-p", "dask_suite.plugin"]
    command += ["--suite-scheduler", scheduler, "--suite-worker", worker, "--suite-outcomes", outcomes, *arguments]
    paths = os.pathsep.join([str(SUITE), str(folder)])
    env = {**os.environ, "PYTHONPATH": paths, "DASK_PYTHON": str(python)}
    return subprocess.run([str(part) for part in command], cwd=folder, env=env).returncode


def outcomes_of(on, parts):
    found = {}
    for part in parts:
        path = HOME / on / f"{part}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            note = json.loads(line)
            if "seconds" in note:
                found[note["test"]] = note
    return found


def known_failures():
    """Tests and the cause for which they fail on ours alone."""
    lines = (LISTS / "failures.txt").read_text().splitlines()
    return dict(line.split(" # ", 1) for line in lines if line and not line.startswith("#"))


def run(options):
    for part in options.part or PARTS:
        if options.failed:
            run_failed(options, part)
            continue
        rounds = ["--suite-rounds", ROUNDS] + (["--suite-round", options.round] if options.round is not None else [])
        pytest(options.on, options.binaries, HOME / options.on / f"{part}.jsonl", [*PARTS[part], *rounds])


def run_failed(options, part):
    """Those of a part's tests that failed on ours."""
    tried = outcomes_of(options.on, [part])
    tests = [test for test, note in outcomes_of("ours", [part]).items() if note["outcome"] == "failed" and test not in tried]
    if tests:
        path = HOME / "failed.txt"
        path.write_text("\n".join(tests) + "\n")
        # What failed may be such that its description crashes the interpreter.
        pytest(options.on, options.binaries, HOME / options.on / f"{part}.jsonl", ["--tb=no", f"@{path}"])


def compare(options):
    known, unknown = known_failures(), []
    total, passed = 0, 0
    for part in options.part or PARTS:
        upstream, ours = (outcomes_of(on, [part]) for on in ("upstream", "ours"))
        # A cluster that a test makes in its own process is upstream's on both sides.
        both = [test for test in upstream if test in ours and "cluster" not in upstream[test]]
        passing = [test for test in both if upstream[test]["outcome"] == "passed"]
        # After `run --on upstream --failed`; they count as if they passed there.
        alone = [test for test, note in ours.items() if note["outcome"] == "passed" and test not in upstream]
        lost = [test for test in passing if ours[test]["outcome"] != "passed"]
        computed = sum(1 for test in passing if upstream[test].get("computes", 1))
        counts = collections.Counter(upstream[test]["outcome"] for test in both)
        print(f"{part}: {len(both)} tests ran on both; upstream: {dict(counts)}; of {len(passing)} passed", end=" ")
        print(f"({computed} with a compute) {len(passing) - len(lost)} pass on ours; {len(alone)} were tried on ours alone and passed")
        untried = [test for test, note in ours.items() if note["outcome"] == "failed" and test not in upstream]
        print(f"  {len(ours)} ran on ours; of those that failed there, {len(untried)} were not tried on upstream", *untried, sep="\n    ")
        unknown += untried
        for test in lost:
            print(f"  {ours[test]['outcome']}: {test} # {known.get(test, 'no known cause')}")
        unknown += [test for test in lost if test not in known]
        total, passed = total + len(passing) + len(alone), passed + len(passing) + len(alone) - len(lost)
    print(f"all: {passed} of {total}, {100 * passed / max(1, total):.2f} %")
    return 1 if unknown or passed < RATIO_MIN * total else 0


def sample(options):
    outcomes = HOME / "sample.jsonl"
    outcomes.unlink(missing_ok=True)
    pytest(options.on, options.binaries, outcomes, [f"@{LISTS / 'sample.txt'}"])
    wanted = (LISTS / "sample.txt").read_text().splitlines()
    notes = [json.loads(line) for line in outcomes.read_text().splitlines()]
    passed = {note["test"] for note in notes if note["outcome"] == "passed"}
    lost = [test for test in wanted if test not in passed]
    print(f"{len(wanted) - len(lost)} of {len(wanted)} tests of dask's own pass", *lost, sep="\n  ")
    return 1 if lost else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subcommands = parser.add_subparsers(required=True)
    for command in (run, compare, sample):
        options = subcommands.add_parser(command.__name__)
        options.set_defaults(command=command)
        if command is not compare:
            options.add_argument("--on", choices=["ours", "upstream"], default="ours")
            options.add_argument("--binaries", type=pathlib.Path, help="folder of dask-scheduler and dask-worker")
        if command is not sample:
            options.add_argument("--part", choices=PARTS, action="append")
        if command is run:
            options.add_argument("--round", type=int, choices=range(ROUNDS), help="one sixteenth of the tests")
            options.add_argument("--failed", action="store_true", help="only tests that failed on ours")
    options = parser.parse_args()
    return options.command(options)


if __name__ == "__main__":
    sys.exit(main())
