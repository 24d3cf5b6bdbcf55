"""The most likely next tokens after a prompt: python docs/examples/next_tokens.py "Once upon a" """

import json
import os
import sys
import urllib.request

URL = os.environ.get("TIEDLM_URL", "http://127.0.0.1:8000")


def ask(path, **body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


prompt = sys.argv[1] if len(sys.argv) > 1 else "The capital of France is"
[result] = ask("/next-token-probabilities", prompt=prompt, top_k=10)["results"]

print(f"{prompt!r}, entropy {result['entropy']:.2f} nats")
for token in result["top"]:
    print(f"{token['rank']:3} {token['probability']:8.4f}  {token['text']!r}")
print(f"    {result['top_mass']:8.4f}  together")
