"""
OpenVINO GenAI behind a pipe, run by the Python that has it: a line of JSON in, a line of JSON out.

    python openvino_driver.py MODEL_FOLDER THREADS [float32]

One prompt goes through its LLMPipeline, several through its ContinuousBatchingPipeline, which is
what each is for. It knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai

Answer = dict[str, float]
Settings = dict[str, int | str]
# By default it computes float32 models in bfloat16 where the processor can, keeps keys and values
# in 8 bits, and rounds what integer weights are multiplied by to 8 bits.
FLOAT32: Settings = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def _ids(prompt: list[int]) -> ov.Tensor:
    return ov.Tensor(np.array([prompt], dtype=np.int64))


def _greedy(max_tokens: int) -> genai.GenerationConfig:
    return genai.GenerationConfig(max_new_tokens=max_tokens, ignore_eos=True, do_sample=False)


@dataclass
class Pipelines:
    """The second is opened when several prompts come together: each holds the weights."""

    folder: Path
    settings: Settings
    many: genai.ContinuousBatchingPipeline | None = None
    single: genai.LLMPipeline = field(init=False)

    def __post_init__(self) -> None:
        self.single = genai.LLMPipeline(str(self.folder), "CPU", **self.settings)

    def answer(self, prompts: list[list[int]], max_tokens: int) -> Answer:
        if len(prompts) == 1:
            return self._alone(prompts[0], max_tokens)
        if self.many is None:
            self.many = self._open_many()
        started = time.perf_counter()
        self.many.generate([_ids(p) for p in prompts], [_greedy(max_tokens)] * len(prompts))
        return {"seconds": time.perf_counter() - started}

    def _alone(self, prompt: list[int], max_tokens: int) -> Answer:
        started = time.perf_counter()
        result = self.single.generate(_ids(prompt), _greedy(max_tokens))
        seconds = time.perf_counter() - started
        if max_tokens == 1:
            return {"seconds": seconds}
        a_token = result.perf_metrics.get_tpot().mean / 1e3
        return {"seconds": seconds, "tokens_a_second": 1 / a_token}

    def _open_many(self) -> genai.ContinuousBatchingPipeline:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size, scheduler.enable_prefix_caching = 1, True  # of GB
        return genai.ContinuousBatchingPipeline(str(self.folder), scheduler, "CPU", self.settings)


def main() -> None:
    settings: Settings = {"INFERENCE_NUM_THREADS": int(sys.argv[2])}
    if sys.argv[3:] == ["float32"]:
        settings |= FLOAT32
    pipelines = Pipelines(Path(sys.argv[1]), settings)
    for line in sys.stdin:
        print(json.dumps(pipelines.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
