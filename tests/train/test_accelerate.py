"""The configurations of accelerate that are shipped: its launcher takes every key of them."""

import os
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin, prepare_multi_gpu_env

from proactivellm.train.sharded import check_sharding

FILES = sorted(Path("recipes/accelerate").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_takes_the_configuration(file, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    known = vars(launch_command_parser().parse_args(["train.py"]))
    args = launch_command_parser().parse_args(["--config_file", str(file), "train.py"])
    args, config, _ = _validate_launch_command(args)
    nested = yaml.safe_load(file.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        for key, value in nested.get(section, {}).items():
            assert key in known and str(getattr(args, key)).lower() == str(value).lower(), key
    assert (args.use_fsdp, args.use_deepspeed) == ("fsdp" in file.stem, "zero" in file.stem)
    assert args.multi_gpu == (file.stem == "ddp")
    if args.use_deepspeed:
        assert args.zero_stage == int(file.stem.removeprefix("zero"))
    elif args.use_fsdp:
        os.environ |= prepare_multi_gpu_env(args)
        check_sharding(of_fsdp())
        os.environ["FSDP_STATE_DICT_TYPE"] = "SHARDED_STATE_DICT"
        with pytest.raises(ValueError, match="fsdp_state_dict_type is SHARDED_STATE_DICT in the"):
            check_sharding(of_fsdp())


def of_fsdp() -> Accelerator:
    """What a process knows of the launcher's environment."""
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = "FSDP"
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    return accelerator
