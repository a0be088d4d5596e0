"""Print, as JSON, what accelerate's launcher would put into a script's environment. Run by ranks.py.

python tests/e2e/launch_environment.py CONFIG.yaml NUM_PROCESSES CHANGES.json
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env


def main():
    path, count, changes = sys.argv[1:]
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    for section, values in json.loads(changes).items():
        content[section] = {**content[section], **values} if isinstance(values, dict) else values
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(content, file)
        file.flush()
        options = ["--config_file", file.name, "--num_processes", count, "--main_process_port", "29500", "script.py"]
        args, defaults, precision_given = _validate_launch_command(launch_command_parser().parse_args(options))
    before = dict(os.environ)
    if args.use_deepspeed:
        fields = [*defaults.deepspeed_config, *(["mixed_precision"] if precision_given else [])]
        args.deepspeed_fields_from_accelerate_config = ",".join(fields)
        environment = prepare_deepspeed_cmd_env(args)[1]
    else:
        environment = prepare_multi_gpu_env(args)
    print(json.dumps({name: value for name, value in environment.items() if before.get(name) != value}))


if __name__ == "__main__":
    main()
