import pytest

from server.kv_budget import RESERVE, SHARE, choose_num_pages
from server.lifecycle import CannotLoad
from server.settings import Settings

PER_TOKEN = 46_080  # SmolLM2-135M: 2 x 30 layers x 3 heads x 64 x 4 bytes
PAGE = 16 * PER_TOKEN
GB = 10**9


def pages(available, context=8192, **fields):
    settings = Settings(**fields)
    return choose_num_pages(
        settings, context=context, bytes_per_token=PER_TOKEN, available=available
    )


def refusal(available, **fields):
    with pytest.raises(CannotLoad) as refused:
        pages(available, **fields)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_by_default_a_full_batch_of_whole_contexts_has_room():
    assert pages(10**15) == 32 * 8192 // 16
    assert pages(10**15, max_batch=3, context=100) == 3 * 7


def test_by_default_never_more_than_a_share_of_what_is_free():
    assert pages(4 * GB) == int(SHARE * 4 * GB) // PAGE
    assert pages(0) == 1


def test_a_flag_is_taken_at_its_word_up_to_what_is_free():
    assert pages(4 * GB, kv_cache_tokens=17) == 2
    assert pages(4 * GB, kv_cache_memory=3 * GB) == 3 * GB // PAGE
    most = (4 * GB - RESERVE) // PAGE
    assert pages(4 * GB, kv_cache_tokens=16 * most) == most
    assert "are free" in refusal(4 * GB, kv_cache_tokens=16 * most + 1)


def test_the_refusal_shows_the_arithmetic():
    told = refusal(4 * GB, kv_cache_tokens=1_000_000)
    assert "--kv-cache-tokens 1000000" in told
    assert "1000000 tokens x 46080 bytes = 46080000000 bytes" in told
    assert f"{4 * GB - RESERVE} are free: {4 * GB} available" in told
    assert str(RESERVE) in told
    told = refusal(4 * GB, kv_cache_memory=4 * GB)
    assert "--kv-cache-memory 4000000000" in told
    assert "86800 tokens x 46080 bytes = 3999744000 bytes" in told


def test_less_than_a_page_is_refused_with_the_size_of_one():
    assert str(PAGE) in refusal(4 * GB, kv_cache_memory=PAGE - 1)
    assert pages(4 * GB, kv_cache_memory=PAGE) == 1
