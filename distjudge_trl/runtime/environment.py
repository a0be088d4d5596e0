"""A description of this machine for bug reports: versions, devices, and packages that features need and that are
missing.
"""

from __future__ import annotations

import os
import platform

from distjudge_trl.runtime.extras import missing_extras
from distjudge_trl.runtime.precision import cpu_has_bfloat16, decide_precision
from distjudge_trl.runtime.provenance import git_revision, library_versions


def describe_environment() -> str:
    """A plain-text report."""
    import torch

    lines = [f"platform: {platform.platform()}", f"git revision: {git_revision() or 'not a clone'}"]
    lines += [f"{name}: {version}" for name, version in library_versions().items()]
    lines.append(f"cpu: {os.cpu_count()} cores, bf16 instructions: {'yes' if cpu_has_bfloat16() else 'no'}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"gpu {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        lines.append("gpu: none")
    precision = decide_precision()
    lines.append(f"computes in: {precision.dtype} ({precision.reason}); trained weights in float32")
    lines += [f"missing for {extra.feature}: {extra.install}" for extra in missing_extras()]
    return "\n".join(lines)
