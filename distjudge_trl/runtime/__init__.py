"""The machine that a process runs on: devices, threads, number types, installed packages, logs."""
