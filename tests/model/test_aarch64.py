"""
The kernels of another family of processors: aarch64's are cross-compiled and emulated, with and
without its dot products, and give the bits of this processor's.

kernel_digests.cpp prints a digest for each of some two thousand cases of all operators.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from model.kernels import native
from tests.end_to_end.running import ROOT
from tests.model.instruction_sets import AVAILABLE

PROGRAM = "tests/model/kernel_digests.cpp"
LIBRARY = Path(native.__file__).with_name(f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
DOT, NO_DOT = "max", "cortex-a57"  # processors that have dot products of bytes, and have none
BYTES = {DOT: 32, NO_DOT: 64}  # of 32 inputs of 8 bits, as their products want them
HAS_FMA_ALWAYS = platform.machine() in ("aarch64", "arm64")

project = tomllib.loads((ROOT / "pyproject.toml").read_text())
(EXTENSION,) = project["tool"]["setuptools"]["ext-modules"]


def build(compiler, folder, sources, *linked):
    """Compiled as the installation compiles."""

    def compiled(source):
        flags = [*EXTENSION["extra-compile-args"], f"-I{ROOT / 'model/kernels/csrc'}"]
        out = folder / f"{Path(source).name}.o"
        subprocess.run([compiler, *flags, "-c", ROOT / source, "-o", out], check=True)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    program = folder / "kernel_digests"
    subprocess.run([compiler, *objects, *linked, "-pthread", "-o", program], check=True)
    return program


def digests(*command):
    """Of a run with two threads: what computed, then a line a case."""
    done = subprocess.run([*command, "2"], capture_output=True, text=True, check=True)
    first, *cases = done.stdout.splitlines()
    return first, cases


def of_any_family(cases):
    """
    But for the C library's error function, whose last bits are those of its build, and the sign of
    a largest that is zero, or if it is NaN: no probability depends on those.
    """
    return [case for case in cases if not case.startswith(("library gelu", "equals"))]


def need(*tools, packages):
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"no {', no '.join(missing)} (Debian: {packages})")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What this processor's instruction sets with fused multiply-add compute, by name."""
    need("c++", packages="g++")
    folder = tmp_path_factory.mktemp("native")
    if sys.platform == "linux":
        program = build("c++", folder, [PROGRAM], LIBRARY)
    else:  # where an extension is no library that programs are linked with
        program = build("c++", folder, [PROGRAM, *EXTENSION["sources"]])
    fused = [name for name in AVAILABLE if HAS_FMA_ALWAYS or name != "portable"]
    return {name: digests(program, name)[1] for name in fused}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """What (instruction set, processor) compute."""
    need(COMPILER, EMULATOR, packages="g++-aarch64-linux-gnu, qemu-user")
    sources = [PROGRAM, *EXTENSION["sources"]]
    program = build(COMPILER, tmp_path_factory.mktemp("aarch64"), sources, "-static")
    runs = [("portable", NO_DOT), ("neon", NO_DOT), ("neon", DOT)]
    run = partial(digests, EMULATOR)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = pool.map(lambda how: run("-cpu", how[1], program, how[0]), runs)
    return dict(zip(runs, told, strict=True))


@pytest.mark.parametrize("processor", [DOT, NO_DOT])
def test_neon_has_the_bits_of_portable_code_in_every_operator(emulated, processor):
    _, expected = emulated["portable", NO_DOT]
    chosen, cases = emulated["neon", processor]
    assert chosen == f"neon {BYTES[processor]}"
    assert len(set(cases)) > 2000
    assert cases == expected


def test_all_instruction_sets_of_this_processor_agree_in_every_operator(here):
    told = [of_any_family(cases) for cases in here.values()]
    assert all(cases == told[0] for cases in told)


def test_aarch64_has_the_bits_of_this_processor(emulated, here):
    _, cases = emulated["neon", DOT]
    for expected in here.values():
        assert of_any_family(cases) == of_any_family(expected)
