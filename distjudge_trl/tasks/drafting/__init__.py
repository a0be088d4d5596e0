"""A first task file from a file of ratings: what `distjudge-trl data FILE --init task.yaml` writes."""

from __future__ import annotations

from distjudge_trl.tasks.drafting.draft import write_draft


__all__ = ["write_draft"]
