"""
How surprising each word of a garden-path sentence is, beside the same sentence with the two words
that keep the reader on the right path. Writes garden_path.png, or what the first argument says.
Needs matplotlib.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no window
import matplotlib.pyplot as plt

URL = os.environ.get("TIEDLM_URL", "http://127.0.0.1:8000")
SENTENCES = {
    "garden path": "The man said the horse raced past the barn fell down.",
    "plain": "The man said the horse that was raced past the barn fell down.",
}


def ask(path, **body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


texts = list(SENTENCES.values())
results = ask("/surprisal", text=texts, by="word", bos=True)["results"]

figure, rows = plt.subplots(len(results), 1, figsize=(8, 5), sharey=True)
for axes, name, result in zip(rows, SENTENCES, results):
    words = result["words"]
    print(name, " ".join(f"{word['text']}:{word['surprisal']:.1f}" for word in words))
    axes.bar(range(len(words)), [word["surprisal"] for word in words], color="#4477aa")
    axes.set_xticks(range(len(words)), [word["text"] for word in words])
    axes.set_ylabel("bits")
    axes.set_title(name)
figure.tight_layout()
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"), dpi=100)
