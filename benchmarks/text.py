"""
Real English and code, the same on every machine: news, a reference manual, and Python's library.

Nothing in this project was chosen by looking at it, so that it may judge the quantiser.
"""

from __future__ import annotations

import argparse
import fractions
import heapq
import inspect
import pydoc_data.topics
import statistics
import textwrap
from collections.abc import Mapping
from types import ModuleType

from weights.catalog import cache_folder
from weights.packages import Entry, Package, pull_packages

# 300 items of the Australian Broadcasting Corporation's news of 2001 (Lee, Pincombe and Welsh 2005)
NEWS = Entry(
    "lee-news",
    (Package("gensim", "4.4.0", "gensim/test/test_data/lee_background.cor"),),
    "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    360_082,
    "gensim's test text, for measuring alone",
)
MODULES: tuple[ModuleType, ...] = (argparse, heapq, statistics, textwrap, fractions)
SHARES: Mapping[str, float] = {"news": 0.6, "manual": 0.2, "code": 0.2}  # of the tokens


def texts() -> Mapping[str, str]:
    """Each far longer than any measurement reads."""
    news = pull_packages(NEWS, cache_folder() / "text" / "lee_background.cor")
    return {
        "news": news.read_text(encoding="utf-8"),
        "manual": "\n\n".join(pydoc_data.topics.topics.values()),
        "code": "\n\n".join(inspect.getsource(module) for module in MODULES),
    }
