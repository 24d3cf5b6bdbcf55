"""
Load by locust: streamed chat with the time to its first token, and scoring.

    locust --locustfile benchmarks/locustfile.py --headless --users 8 --run-time 30s \\
        --host http://127.0.0.1:8000
"""

import json
import random
import time

from locust import HttpUser, constant, task

WORDS = ("sea", "village", "lamp", "winter", "letter", "bridge", "garden", "clock")


class Reader(HttpUser):
    wait_time = constant(0)

    @task(3)
    def chat(self) -> None:
        body = {
            "messages": [{"role": "user", "content": f"Tell of a {random.choice(WORDS)}."}],
            "max_tokens": 16,
            "stream": True,
        }
        began = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions", json=body, stream=True, catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            is_first = True
            for line in answer.iter_lines():
                if not line.startswith(b"data: {"):
                    continue
                [choice] = json.loads(line[6:])["choices"]
                if is_first and choice["delta"].get("content"):
                    is_first = False
                    self.tell_first_token(time.perf_counter() - began)
            answer.success()

    def tell_first_token(self, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name="time to first token",
            response_time=1000 * seconds,
            response_length=0,
            exception=None,
            context={},
        )

    @task(1)
    def score(self) -> None:
        text = " ".join(random.choices(WORDS, k=12))
        body = {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 0}
        self.client.post("/v1/completions", json=body)
