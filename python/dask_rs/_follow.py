"""Becomes the program in its arguments, which gets SIGINT when the process that started it ends."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main():
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            sys.exit("whoever started this has ended already")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
