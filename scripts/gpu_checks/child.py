"""A check's process: python -m gpu_checks.child MODULE NAME FOLDER MACHINE, the machine as JSON."""

import importlib
import json
import sys
import traceback
from pathlib import Path

from gpu_checks.check import Findings, Machine, Skip


def main() -> None:
    module, name, folder, machine = sys.argv[1:]
    findings = Findings(Machine(**json.loads(machine)), Path(folder))
    try:
        (check,) = [check for check in importlib.import_module(module).CHECKS if check.name == name]
        check.function(findings, *check.args)
    except Skip as reason:
        findings.skip(str(reason))
    except Exception as error:  # noqa: BLE001 (whatever it is, it goes into the report)
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        findings.fail(f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
    findings.end()


if __name__ == "__main__":
    main()
