"""The cache's memory: used up a little at a time, and there before the first token."""

import ctypes
import mmap
from itertools import pairwise

import numpy as np
import pytest
import torch

from model.huge_pages import make_resident
from model.kv_pool import HUGE_PAGE, KVPool, apart
from weights.catalog import resolve
from weights.load import load


def resident_share(first, num_bytes):
    """Of the whole pages in a range of memory, by the system's own account."""
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    count = (first + num_bytes - start) // mmap.PAGESIZE
    pages = (ctypes.c_ubyte * count)()
    library = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t(count * mmap.PAGESIZE)
    assert library.mincore(ctypes.c_void_p(start), size, pages) == 0
    return sum(page & 1 for page in pages) / count


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "gemma-3-270m"])
def config(request):
    return load(resolve(request.param)).config


def test_no_page_of_the_cache_waits_for_huge_pages_of_all_layers(config):
    """With a page of the cache a huge page is begun in some regions, never in most of them."""
    pool = KVPool(config, 1024)
    page_bytes = 4 * pool.keys[0, 0].numel()
    regions = sorted(pool.beginnings())
    begun = [
        {(first + page * page_bytes - 1) // HUGE_PAGE for first in regions}
        for page in range(1, 1024)
    ]
    new = [len(more - before) for before, more in pairwise(begun)]
    assert sum(new) > len(regions)
    assert max(new) <= 2 + page_bytes * len(regions) // HUGE_PAGE


@pytest.mark.parametrize(("size", "count"), [(1000, 60), (10**6, 36), (8 << 20, 60), (7, 2)])
def test_regions_begin_with_a_line_and_waste_no_more_than_some_huge_pages(size, count):
    step = apart(size, count)
    assert size <= step
    assert step % 16 == 0
    assert 4 * count * (step - size) <= 5 * HUGE_PAGE


def test_keys_and_values_of_no_layer_overlap():
    pool = KVPool(load(resolve("smollm2-135m-instruct")).config, 3)
    for number, each in enumerate((*pool.keys, *pool.values)):
        each.fill_(number)
    for number, each in enumerate((*pool.keys, *pool.values)):
        assert bool((each == number).all())
    assert pool.num_bytes == 4 * (pool.keys.numel() + pool.values.numel())


def test_memory_is_made_resident_and_keeps_what_it_holds():
    memory = torch.from_numpy(np.frombuffer(mmap.mmap(-1, 64 << 20), np.float32))
    memory[5] = 1.0
    first, half = memory.data_ptr(), memory.nbytes // 2
    assert resident_share(first, memory.nbytes) < 0.2
    make_resident({first + 64: half})
    assert resident_share(first + 64, half) == 1.0
    assert resident_share(first + half, half) < 0.2
    assert memory[5] == 1.0
    assert memory.sum() == 1.0
