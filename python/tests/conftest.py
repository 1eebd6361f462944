"""Tests of the package. The programs are in $DASK_RS_BIN, or installed with the package."""

import pytest
from installing import search_path


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A PYTHONPATH that makes the package's entry points known."""
    return search_path(tmp_path_factory.mktemp("site"))
