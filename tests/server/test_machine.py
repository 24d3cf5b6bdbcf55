"""Folders stand in for /sys/fs/cgroup, as each version and each way of mounting it shows them."""

import os

import pytest

from server.machine import available_memory, available_of_machine, cores_of_machine, usable_cores

UNLIMITED_V1 = 2**63 - 4096  # what version 1 says where there is no limit


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class Machine:
    def __init__(self, folder):
        self.mount, self.membership = folder / "cgroup", folder / "membership"
        self.mount.mkdir()

    def belongs_to(self, *lines):
        self.membership.write_text("\n".join(lines) + "\n")

    def files(self, group, **texts):
        folder = self.mount / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            # memory_max stands for memory.max
            (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")

    def memory(self):
        return available_memory(self.mount, self.membership)

    def cores(self):
        return usable_cores(self.mount, self.membership)


def test_without_groups_it_is_the_machine(machine):
    whole = available_of_machine()
    assert abs(machine.memory() - whole) < whole / 2
    assert machine.cores() == len(os.sched_getaffinity(0))


def test_version_two_in_a_container_is_read_at_the_root(machine):
    machine.belongs_to("0::/")
    machine.files("", memory_max=2**20, memory_current=2**18, cpu_max="50000 100000")
    assert machine.memory() == 2**20 - 2**18
    assert machine.cores() == 1


def test_version_one_in_a_container_is_read_at_the_root_whatever_its_path_outside(machine):
    machine.belongs_to("5:memory:/docker/abc", "4:cpu,cpuacct:/docker/abc", "0::/")
    machine.files("memory", memory_limit_in_bytes=2**20, memory_usage_in_bytes=2**18)
    machine.files("cpu", cpu_cfs_quota_us=20000, cpu_cfs_period_us=100000)
    assert machine.memory() == 2**20 - 2**18
    assert machine.cores() == 1


@pytest.mark.parametrize("limited", ["", "a", "a/b"])
def test_the_tightest_group_from_ones_own_up_to_the_root_decides(machine, limited):
    machine.belongs_to("0::/a/b")
    for group in ("", "a", "a/b"):
        machine.files(group, memory_max="max", memory_current=5)
    machine.files(limited, memory_max=1000, memory_current=400)
    assert machine.memory() == 600


def test_a_sibling_has_no_say(machine):
    machine.belongs_to("0::/a")
    machine.files("a", memory_max=2000, memory_current=0)
    machine.files("b", memory_max=10, memory_current=0)
    assert machine.memory() == 2000


def test_cached_files_count_as_free_for_they_are_given_back(machine):
    machine.belongs_to("0::/")
    machine.files(
        "", memory_max=1000, memory_current=900, memory_stat="anon 100\ninactive_file 700"
    )
    assert machine.memory() == 800
    machine.belongs_to("5:memory:/")
    stat = "cache 9\ninactive_file 1\ntotal_inactive_file 300"
    machine.files("memory", memory_limit_in_bytes=1000, memory_usage_in_bytes=900, memory_stat=stat)
    assert machine.memory() == 400


def test_more_used_than_allowed_is_nothing_left(machine):
    machine.belongs_to("0::/")
    machine.files("", memory_max=10, memory_current=20)
    assert machine.memory() == 0


def test_no_limit_is_no_limit_in_either_version(machine):
    machine.belongs_to("5:memory:/", "4:cpu:/", "0::/")
    machine.files("", memory_max="max", memory_current=7, cpu_max="max 100000")
    machine.files("memory", memory_limit_in_bytes=UNLIMITED_V1, memory_usage_in_bytes=7)
    machine.files("cpu", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    assert machine.memory() > 64 * 2**20
    assert machine.cores() == cores_of_machine()


def test_part_of_a_core_is_rounded_up_and_a_large_quota_adds_none(machine):
    machine.belongs_to("0::/")
    machine.files("", cpu_max="100001 100000")
    assert machine.cores() == min(2, cores_of_machine())
    machine.files("", cpu_max="9900000 100000")
    assert machine.cores() == cores_of_machine()


def test_a_group_outside_of_what_the_process_sees_is_not_looked_for(machine):
    machine.belongs_to("0::/../../other")
    machine.files("", memory_max=100, memory_current=0)
    machine.files("../other", memory_max=1, memory_current=0)
    assert machine.memory() == 100


def test_damaged_files_are_as_good_as_none(machine):
    machine.belongs_to("0::/")
    machine.files("", memory_max="lots", memory_current="few", cpu_max="", cpu_cfs_quota_us="")
    assert machine.memory() > 0
    assert machine.cores() == cores_of_machine()
