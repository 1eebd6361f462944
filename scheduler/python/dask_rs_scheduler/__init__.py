"""Runs Python that clients send to a dask-rs scheduler: functions, plugins, preload modules, feeds."""
