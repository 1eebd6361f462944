"""Functions of tasks. Workers import them from here: the harness sets PYTHONPATH."""

import time


def noop(number):
    return number


def total(*numbers):
    return sum(numbers)


def total_of(numbers):
    return sum(numbers)


def add(a, b):
    return a + b


def increment(number):
    return number + 1


def wait_for(seconds, _number):
    time.sleep(seconds)
    return 1
