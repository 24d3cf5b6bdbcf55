"""How far our logits are from transformers' on a tiny checkpoint, by each way of computing."""

import itertools

import torch

from model.generate import generate, logits
from model.kernels import TorchKernels
from model.kv_pool import KVPool
from model.paged import PagedMemory, plan
from model.program import record
from model.runner import build_transformer
from model.step import Row
from tests.model.tiny_families import VOCAB_SIZE
from weights.load import load

PAGE_SIZE, LENGTH = 5, 200  # pages that divide neither prompt nor window
CHUNKS = (1, 63, 64, 65, 150, 151, 199)  # where the prompt is cut, also at the window's edge


def prompt(seed, length=LENGTH):
    return torch.randint(
        0, VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


class Ours:
    def __init__(self, folder, kernels=None):
        checkpoint = load(folder)
        self.config = checkpoint.config
        self.transformer = build_transformer(checkpoint, kernels=kernels)

    def whole(self, tokens):
        return logits(self.transformer, tokens)

    @torch.inference_mode()
    def chunked(self, tokens, company, cuts=CHUNKS, is_replayed=False):
        """In pages, in chunks, each beside a row of another sequence that decodes on."""
        num_pages = 2 * -(-LENGTH // PAGE_SIZE)
        pool = KVPool(self.config, num_pages, PAGE_SIZE)
        program = record(self.transformer, pool) if is_replayed else None
        pages = torch.randperm(num_pages, generator=torch.Generator().manual_seed(1)).tolist()
        mine, others = tuple(pages[: num_pages // 2]), tuple(pages[num_pages // 2 :])
        found = []
        for step, (start, end) in enumerate(itertools.pairwise((0, *cuts, LENGTH))):
            rows = [Row((company[step],), step, others), Row(tuple(tokens[start:end]), start, mine)]
            batch = plan(rows, PAGE_SIZE)
            if program is None:
                memory = PagedMemory(pool, batch, self.transformer.kernels)
                hidden = self.transformer.forward(batch.tokens, batch.positions, memory)
            else:
                x = self.transformer.enter(batch.tokens, batch.positions)
                hidden = program.run(x, batch)
            found.append(self.transformer.embedding.logits(hidden)[1:])
        return torch.cat(found)

    def greedy(self, tokens, count):
        return generate(self.transformer, tokens, count)


def measure(theirs, folder):
    """Name of a way -> largest difference of a logit from transformers'."""
    tokens, company = prompt(3), prompt(4)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    native, plain = Ours(folder), Ours(folder, TorchKernels())
    found = {
        "whole": native.whole(tokens),
        "chunked": native.chunked(tokens, company),
        "reference": plain.chunked(tokens, company),
    }
    differences = {way: float((out - expected).abs().max()) for way, out in found.items()}
    between = float((found["chunked"] - found["reference"]).abs().max())
    return differences | {"native from reference": between}, expected
