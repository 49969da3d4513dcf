"""One process trains in a folder at a time."""

from pathlib import Path

import pytest
import yaml

from emsr_fast import VolumeError
from emsr_fast.train.output_folder import OutputFolder
from pauses import Paused
from training import run


# a real process has the folder, and stops before it writes there; seconds: it loads PyTorch
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_process_in_the_folder_of_a_run_is_refused_and_told_who_has_it(small_run, tmp_path, resume):
    folder, settings = Path(small_run["output"]), {**small_run, "validation_crops": 0}
    if resume:
        run(settings, steps=2)
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()} if resume else {}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**settings, "steps": 4}))
    arguments = ["train", tmp_path / "c.yaml", "--device=cpu", *(["--resume"] if resume else [])]
    with Paused(arguments, tmp_path, "renameat2") as first:
        with pytest.raises(VolumeError, match=rf"is training in {folder} \(process {first.process.pid} on "):
            run(settings, steps=4, resume=resume)
        assert first.go_on()[0] == 0
    after = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    assert sorted(after) == ["config.yaml", "last.pt", "last.safetensors", "log.csv"]
    assert after["log.csv"].startswith(before.get("log.csv", b""))


def test_the_folder_of_a_killed_process_is_free_and_an_empty_one_is_not_left(tmp_path):
    folder = tmp_path / "deep" / "run"
    with OutputFolder(folder).held(resume=False):
        left = (folder / ".lock").read_text()
        with pytest.raises(VolumeError, match="is training in"), OutputFolder(folder).held(resume=False):
            pass
    assert not folder.parent.exists()
    folder.mkdir(parents=True)
    (folder / ".lock").write_text(left)
    with OutputFolder(folder).held(resume=False):
        pass
    assert not list(folder.iterdir())
