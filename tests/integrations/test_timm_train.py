"""The example beside timm's train script, run as a user runs it."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gainfinder
from digit_files import digit_folder
from transfers import same

EXAMPLE = Path(__file__).parents[2] / "examples" / "timm_train.py"
EPOCH = re.compile(r"epoch (\d): loss (\d\.\d+), teacher share (\d+\.\d+)%, top-1 (\d+\.\d+)")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's reader leaves images to be closed
def test_it_trains_and_goes_on(zoo: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 64), ("validation", 32)):
        digit_folder(tmp_path / "data" / split, count, broken=0)
    main: Callable[[list[str]], None] = runpy.run_path(str(EXAMPLE))["main"]
    command = f"--data-dir {tmp_path}/data --model {zoo['resnet']} --teachers {zoo['vit']} {zoo['convnext']}"
    command += f" --output {tmp_path}/run --batch-size 16 --grad-accum-steps 2 --workers 0 --device cpu --resume auto"
    main([*command.split(), "--epochs", "1"])
    first = EPOCH.findall(capsys.readouterr().out)
    main([*command.split(), "--epochs", "2", "--amp"])
    again = EPOCH.findall(capsys.readouterr().out)
    assert [row[0] for row in first + again] == ["0", "1"], "one epoch each"
    assert all(0 < float(share) < 100 and float(top1) > 50 for _, _, share, top1 in first + again)

    checkpoint = torch.load(tmp_path / "run" / "last.pth.tar", weights_only=True)
    before = gainfinder.load_model(zoo["resnet"]).module.state_dict()
    assert same(checkpoint["task_state"]["initial_student"], before)
    assert not same(checkpoint["state_dict"], before)
