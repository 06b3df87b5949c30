// The queue: what runs, what waits and why; whoever may takes it back.

import { call } from "./api.js";
import { $, announce, follow, once, setText } from "./frame.js";
import { aboutOf, sizeOf, stageOf } from "./words.js";

const template = $("entry");

class Row {
  constructor() {
    this.element = template.content.firstElementChild.cloneNode(true);
    const part = (selector) => this.element.querySelector(selector);
    this.place = part(".place");
    this.number = part(".number");
    this.prompt = part(".prompt");
    this.who = part(".who");
    this.stage = part(".stage");
    this.progress = part("progress");
    this.button = part("button");
    this.button.addEventListener("click", () => cancel(this));
    setInterval(() => this.element.isConnected && this.#showStage(), 1000);
  }

  update(entry) {
    this.entry = entry;
    const { id, is_yours, prompt, who, runs, position, mode, device } = entry;
    const title = prompt ?? `A request of ${who}`;
    this.element.classList.toggle("yours", is_yours);
    this.place.hidden = runs || !position;
    setText(this.number, String(position ?? ""));
    setText(this.prompt, title);
    const facts = [is_yours ? "yours" : null, mode, sizeOf(entry), runs ? device : null];
    setText(this.who, facts.filter(Boolean).join(" · "));
    this.#showStage();
    this.progress.hidden = !runs;
    this.progress.setAttribute("aria-label", `Progress of ${title}`);
    if (entry.progress?.fraction) this.progress.value = entry.progress.fraction;
    else this.progress.removeAttribute("value");
    this.button.hidden = id === null;
    this.button.ariaLabel = `Cancel ${title}`;
  }

  #showStage() {
    const { runs, why, progress, expected_at } = this.entry;
    const about = aboutOf(expected_at);
    if (runs) setText(this.stage, progress ? stageOf({ status: "running", progress }) + (about && `, ${about}`) : "");
    else setText(this.stage, why + (about && ` Done in ${about}.`));
  }
}

// Shows entries as rows of a list; rows are kept for their entries, so that focus stays put.
class Rows {
  constructor(list) {
    this.list = list;
    this.rows = new Map();
  }

  show(entries) {
    const keyed = entries.map((entry, index) => [entry.id ?? `${entry.created_at} ${index}`, entry]);
    const keys = new Set(keyed.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      if (row.element.contains(document.activeElement)) $("main").focus();
      row.element.remove();
      this.rows.delete(key);
    }
    keyed.forEach(([key, entry], index) => {
      if (!this.rows.has(key)) this.rows.set(key, new Row());
      const row = this.rows.get(key);
      row.update(entry);
      const there = this.list.children[index];
      if (there !== row.element) this.list.insertBefore(row.element, there ?? null);
    });
  }
}

const running = new Rows($("running"));
const waiting = new Rows($("waiting"));

function show(queue) {
  const errands = queue.errands.map(({ text, device }) => ({
    id: null,
    is_yours: false,
    prompt: text,
    mode: null,
    runs: true,
    device,
    created_at: text,
  }));
  running.show([...errands, ...queue.running]);
  waiting.show(queue.waiting);
  $("running-part").hidden = errands.length + queue.running.length === 0;
  $("waiting-part").hidden = queue.waiting.length === 0;
  $("calm").hidden = !($("running-part").hidden && $("waiting-part").hidden);
  setText($("waiting-title"), `Waiting: ${queue.waiting.length} of ${queue.queue_max} places`);
}

async function cancel({ entry, button }) {
  $("error").hidden = true;
  const work = async () => {
    show(await call("POST", `/api/queue/${entry.id}/cancel`));
    announce("Cancelled.");
  };
  await once(button, work, (problem) => {
    $("error").textContent = problem.message;
    $("error").hidden = false;
  });
}

follow("/api/queue/events", { queue: show });
