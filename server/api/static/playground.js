// The playground: what it shows, it asks of the public API alone.
"use strict";

const $ = (id) => document.getElementById(id);
const JSON_HEADERS = { "Content-Type": "application/json" };
let running = null; // AbortController of the call under way

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Spaces and line ends can be seen.
function visible(text) {
  return text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
}

function percent(probability) {
  return probability >= 0.001 ? (100 * probability).toFixed(1) + " %" : probability.toExponential(1);
}

function showTable(title, tokens, chosen, summary) {
  $("title").textContent = title;
  $("summary").textContent = summary || "";
  $("rows").replaceChildren(...tokens.map((token) => {
    const row = element("tr", undefined, token.id === chosen ? "chosen" : "");
    const probability = Math.exp(token.logprob);
    const bar = element("td", undefined, "bar");
    const meter = element("meter");
    meter.value = probability;
    meter.title = "logprob " + token.logprob;
    bar.append(meter);
    row.append(element("td", token.rank ?? ""), element("td", visible(token.text), "token"),
      element("td", token.id), element("td", percent(probability)), bar);
    return row;
  }));
}

function showToken(button, token) {
  for (const other of $("text").querySelectorAll("[aria-pressed=true]")) other.ariaPressed = "false";
  button.ariaPressed = "true";
  const isListed = token.top.some((other) => other.id === token.id);
  showTable("Instead of " + visible(token.text), isListed ? token.top : [...token.top, token], token.id,
    "logprob " + token.logprob);
}

// Several tokens may be needed for one character: each shows the text that was new with it.
function appendToken(token, text) {
  const button = element("button", text);
  button.type = "button";
  const probability = Math.exp(token.logprob);
  button.style.setProperty("--probability", probability);
  button.title = visible(token.text) + "  " + percent(probability);
  button.addEventListener("click", () => showToken(button, token));
  $("text").append(button);
}

function fail(error) {
  if (error.name === "AbortError") return;
  $("status").textContent = error.message;
  $("status").className = "error";
}

async function refusal(response) {
  try {
    return new Error((await response.json()).error.message);
  } catch {
    return new Error("The server answered " + response.status);
  }
}

async function post(path, body, accept) {
  const response = await fetch(path, {
    method: "POST", headers: { ...JSON_HEADERS, Accept: accept },
    body: JSON.stringify(body), signal: running.signal,
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (left + value).split("\n");
    left = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

function addChoice(choice) {
  const tokens = choice.tokens;
  tokens.forEach((token, i) => appendToken(token, i === tokens.length - 1 ? choice.text : ""));
  if (!tokens.length && choice.text) $("text").append(choice.text);
}

function generationBody() {
  const seed = $("seed").value;
  return {
    prompt: $("prompt").value, max_tokens: Number($("max_tokens").value),
    temperature: Number($("temperature").value), top_p: Number($("top_p").value),
    seed: seed === "" ? null : Number(seed), logprobs: 10, stream: true,
  };
}

async function generate() {
  $("text").replaceChildren(element("span", $("prompt").value, "prompt"));
  const response = await post("/generate", generationBody(), "text/event-stream");
  for await (const event of events(response)) {
    event.choices.forEach(addChoice);
    if (event.usage) showUsage(event);
  }
}

function showUsage(event) {
  const { prompt_tokens, completion_tokens, cached_tokens } = event.usage;
  $("status").textContent = `${prompt_tokens} + ${completion_tokens} tokens, ${cached_tokens} cached, ` +
    `${event.timings.tokens_per_second.toFixed(1)} tokens/s`;
}

async function nextToken() {
  const body = { prompt: $("prompt").value, top_k: 20 };
  const answer = await (await post("/next-token-probabilities", body, "application/json")).json();
  const [found] = answer.results;
  showTable("Next token", found.top, undefined,
    `entropy ${found.entropy.toFixed(4)} nats; these are ${percent(found.top_mass)} of all`);
}

async function run(work) {
  if (running) running.abort();
  const mine = running = new AbortController();
  $("status").textContent = "";
  $("status").className = "";
  $("stop").disabled = false;
  await work().catch(fail);
  if (running === mine) $("stop").disabled = true;
}

async function start() {
  const response = await fetch("/props");
  if (!response.ok) throw await refusal(response);
  const props = await response.json();
  $("model").textContent = `${props.model}, ${props.precision}: ${props.vocab_size} tokens, ` +
    `one table of ${(props.tie.embedding_bytes / 2 ** 20).toFixed(0)} MB for both ends`;
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); run(generate); });
$("next").addEventListener("click", () => run(nextToken));
$("stop").addEventListener("click", () => running && running.abort());
start().catch(fail);
