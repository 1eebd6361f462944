"""Runs the Python side of a dask-rs worker."""
