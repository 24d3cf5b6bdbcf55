"""
lm-evaluation-harness: local-completions with every tokenizer, and local-chat-completions, beside
the same harness running transformers in process on the same weights.

LM_EVAL_FOLDER is the checkpoint as a Hugging Face folder. Every metric and every log-likelihood, of
a choice or of a whole text, must agree to 1e-3, and every generated text to the letter.

Transformers runs in float64: torch's log-softmax in float32 is off by 6e-6 nat a token, always to
the same side, so that a text of 270 tokens is 1.7e-3 from its own float64 sum, and ours 3e-5.
"""

import functools
import math
import os
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads would spin against the server's

import lm_eval
from lm_eval.tasks import TaskManager

TASKS = ["local_choices", "local_texts", "local_answers"]
FOLDER = os.environ["LM_EVAL_FOLDER"]
TOLERANCE = 1e-3


def evaluate(model, arguments, tasks=TASKS, **more):
    manager = TaskManager(
        include_path=str(Path(__file__).parents[1] / "lm_eval_tasks"), include_defaults=False
    )
    result = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=tasks,
        task_manager=manager,
        batch_size=1,
        bootstrap_iters=0,
        **more,
    )
    answers = {
        (task, sample["doc_id"]): flat(sample["resps"])
        for task, samples in result["samples"].items()
        for sample in samples
    }
    numbers = {
        (task, name): value
        for task, metrics in result["results"].items()
        for name, value in metrics.items()
        if isinstance(value, float) and "stderr" not in name
    }
    return answers, numbers


def flat(value):
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


@functools.cache
def reference():
    arguments = {"pretrained": FOLDER, "dtype": "float64", "device": "cpu", "max_length": 2048}
    return evaluate("hf", arguments)


def compare(url, tasks=TASKS, **more):
    """How far log-likelihoods are apart is printed."""
    arguments = {
        "model": "smollm2-135m-instruct",
        "base_url": f"{url}/v1/completions",
        "max_length": 2048,
        "num_concurrent": 4,
    }
    answers, numbers = evaluate("local-completions", arguments | more, tasks)
    expected_answers, expected_numbers = (
        {key: value for key, value in found.items() if key[0] in tasks} for found in reference()
    )
    assert answers.keys() == expected_answers.keys()
    assert numbers.keys() == expected_numbers.keys()
    assert len(numbers) >= 2 * len(tasks) - 1
    apart = dict.fromkeys(TASKS, 0.0)
    for (task, doc), expected in expected_answers.items():
        for own, other in zip(answers[task, doc], expected, strict=True):
            if not isinstance(other, float):
                assert own == other, (task, doc, own, other)
                continue
            assert abs(own - other) < TOLERANCE, (task, doc, own, other)
            apart[task] = max(apart[task], abs(own - other))
    for key, expected in expected_numbers.items():
        close = math.isclose(numbers[key], expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        assert close, (key, numbers[key], expected)
    print(more, "log-likelihoods apart", apart, "metrics", numbers, flush=True)


def test_tokenizer_remote(url):
    compare(url, tokenizer_backend="remote")


def test_tokenizer_auto(url):
    compare(url)


def test_tokenizer_huggingface(url):
    compare(url, tokenizer_backend="huggingface", tokenizer=FOLDER)


def test_prompts_as_text(url):
    compare(url, tokenizer_backend="remote", tokenized_requests=False)


def test_tokenizer_none(url):
    """The harness itself wants a tokenizer for log-likelihoods: what is generated is left."""
    compare(url, ["local_answers"], tokenizer_backend="none", tokenized_requests=False)


def test_local_chat_completions(url):
    """Chat has no log-likelihoods: what it generates is all, by the template."""
    arguments = {"model": "smollm2-135m-instruct", "base_url": f"{url}/v1/chat/completions"}
    told, _ = evaluate(
        "local-chat-completions", arguments, ["local_answers"], apply_chat_template=True
    )
    own = {"pretrained": FOLDER, "dtype": "float64", "device": "cpu"}
    expected, _ = evaluate("hf", own, ["local_answers"], apply_chat_template=True)
    assert told == expected
