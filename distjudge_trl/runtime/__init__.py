"""What a process finds on its machine, and how it uses it: devices, threads, types, packages, logs."""
