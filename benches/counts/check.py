#!/usr/bin/env python3
"""Counts the instructions of each path of `dask-counts` and holds them against `baselines.json`.

    benches/counts/check.py              # fails when a path has grown by more than 10 %
    benches/counts/check.py --record     # writes the baselines anew: after a change that is worth it, or with another compiler

It builds the program with the profile `counts` and runs it under callgrind, which counts the same on a busy machine and on an idle
one. Needs valgrind; where there is none it says so and counts nothing.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASELINES = HERE / "baselines.json"
GROWTH_MAX = 0.10


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def program():
    subprocess.run(["cargo", "build", "--quiet", "--profile", "counts", "-p", "dask-counts"], cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "counts" / "dask-counts"


def instructions(binary, path):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*dask_counts*measured*"]
    run = subprocess.run([*command, str(binary), path], capture_output=True, text=True)
    found = re.search(r"Collected\s*:\s*(\d+)", run.stderr)
    if run.returncode or not found or not int(found[1]):
        sys.exit(f"{path} could not be counted:\n{run.stderr}")
    return int(found[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the baselines anew")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        print("NOT RUN: instructions are not counted, as there is no valgrind here (apt-get install valgrind)")
        return
    binary = program()
    compiler = output("rustc", "--version").strip()
    counts = {path: instructions(binary, path) for path in output(binary).split()}
    if options.record:
        BASELINES.write_text(json.dumps({"compiler": compiler, "instructions": counts}, indent=2) + "\n")
        print(f"recorded {len(counts)} baselines of {compiler}")
        return
    baselines = json.loads(BASELINES.read_text())
    grown = []
    print(f"{'path':<22}{'instructions':>14}{'baseline':>14}{'growth':>9}")
    for path, count in counts.items():
        baseline = baselines["instructions"].get(path)
        growth = count / baseline - 1 if baseline else float("nan")
        print(f"{path:<22}{count:>14,}{baseline or 0:>14,}{growth:>9.1%}")
        if not growth <= GROWTH_MAX:
            grown.append(path)
    if gone := baselines["instructions"].keys() - counts.keys():
        sys.exit(f"baselines of paths that are no more: {', '.join(sorted(gone))}")
    if not grown:
        return
    if compiler != baselines["compiler"]:
        print(f"NOT COMPARED: the baselines are of {baselines['compiler']}, this is {compiler}; record them anew")
        return
    sys.exit(f"more than {GROWTH_MAX:.0%} more instructions, or no baseline: {', '.join(grown)}")


if __name__ == "__main__":
    main()
