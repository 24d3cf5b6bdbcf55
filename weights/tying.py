"""What one matrix at both ends saves: the numbers of `inspect` and of docs/tying.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from weights.checkpoint import ModelConfig
from weights.families import FAMILIES


@dataclass(frozen=True, slots=True)
class Tying:
    vocab_size: int
    width: int  # of the matrix; in one OPT it is narrower than the model
    parameters: int  # of the whole model, the matrix counted once

    @property
    def matrix(self) -> int:
        """Parameters of the matrix: what an untied model has twice."""
        return self.vocab_size * self.width

    @property
    def share(self) -> float:
        return self.matrix / self.parameters

    def saved(self, bytes_per_value: int) -> int:
        return self.matrix * bytes_per_value


def tying_of(config: ModelConfig) -> Tying:
    family = next(family for family in FAMILIES if family.name == config.family)
    parameters = sum(math.prod(shape) for shape in family.shapes(config).values())
    width = config.embedding_size or config.hidden_size
    return Tying(config.vocab_size, width, parameters)
