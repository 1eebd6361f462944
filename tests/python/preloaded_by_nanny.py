"""A module that nannies preload: it changes what their workers are started with."""

import os


async def dask_setup(nanny):
    nanny.preloaded_mark = "on-nanny"
    nanny.env["DASK_TEST_OF_NANNY"] = "set by nanny"
    os.environ["DASK_TEST_INHERITED"] = "set in nanny"
