"""A module that workers and schedulers preload: it leaves traces where tests find them."""

import click


@click.command()
@click.option("--mark", default="unmarked")
def dask_setup(server, mark):
    server.preloaded_mark = mark


def dask_teardown(server):
    server.preloaded_mark = "torn down"
