"""dask's own test-suite on a cluster: `plugin` is what pytest loads (`-p dask_suite.plugin`)."""
