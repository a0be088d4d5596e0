"""Atomic reading and writing of files, YAML, the cache folder, and files that ship with the package."""
