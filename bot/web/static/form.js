// The prompt box and what folds out below it: reads what was typed, shows what is allowed.

import { Loras } from "./loras.js";
import { Modes } from "./modes.js";
import { Picture } from "./picture.js";

const $ = (id) => document.getElementById(id);

// Names as people type them, and as the API has them.
const FIELDS = {
  negative: "negative_prompt",
  size: "size",
  count: "count",
  seed: "seed",
  steps: "steps",
  guidance: "guidance_scale",
  sampler: "sampler",
  refiner: "refiner_from",
};
const NUMBERS = new Set(["count", "seed", "steps", "guidance", "refiner"]);
const ALIASES = { command: "prompt", width: "size", height: "size", ...swapped(FIELDS) };

const KEPT = "dream-lab-draft"; // what was typed, so that a reload and a look at another page lose nothing

const EXAMPLES = [
  "a lighthouse at dawn, watercolour",
  "a fox asleep in the snow, soft light",
  "a paper boat on a puddle, macro photo",
  "an old library with a glass roof",
];

function swapped(object) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [value, key]));
}

// What is no number goes to the server as it was typed: its answer says what is allowed.
function typed(name, text) {
  if (!NUMBERS.has(name)) return text;
  const number = Number(text.replace(",", "."));
  return Number.isFinite(number) && Math.abs(number) <= Number.MAX_SAFE_INTEGER ? number : text;
}

export class Form {
  constructor({ send, example }) {
    this.form = $("ask");
    this.prompt = $("prompt");
    this.example = example;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    this.form.addEventListener("keydown", (event) => {
      const inBox = event.target === this.prompt;
      // Enter that ends a composition (Japanese, Chinese, ...) is not meant for us.
      if (inBox && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!event.repeat) send();
      }
    });
    this.form.addEventListener("input", () => {
      this.clear();
      this.#keep();
    });
    this.loras = new Loras();
    this.modes = new Modes(() => {
      this.#showMode();
      this.#keep();
    });
    this.picture = new Picture({
      changed: () => this.clear(),
      failed: (problem) => setTimeout(() => this.showError(problem)),
    });
    this.madeOf = null; // the job that is being changed
    this.#restore();
  }

  // Shows what a job was drawn with, to be changed.
  fill(job) {
    const { request } = job;
    this.madeOf = job.id;
    this.prompt.value = request.prompt;
    for (const [name, key] of Object.entries(FIELDS)) $(name).value = request[key] ?? "";
    $("size").value = `${request.width}x${request.height}`;
    $("more").open = true;
    this.modes.ask(request.mode);
    this.#showMode();
    $("sampler").value = request.sampler;
    this.#keep();
  }

  choose(mode) {
    this.modes.ask(mode);
    this.#showMode();
    this.#keep();
  }

  #keep() {
    const fields = [this.prompt, ...Object.keys(FIELDS).map($)];
    const kept = Object.fromEntries(fields.map(({ id, value }) => [id, value]));
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, mode: this.modes.asked }));
    } catch {
      // A browser that keeps nothing begins with an empty form.
    }
  }

  #restore() {
    try {
      const { mode, ...kept } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
      for (const [id, value] of Object.entries(kept)) $(id).value = value;
      this.sampler = kept.sampler; // its choices come with the modes
      this.modes.ask(mode ?? null);
    } catch {
      // Likewise.
    }
  }

  draft() {
    const draft = { prompt: this.prompt.value };
    for (const [name, key] of Object.entries(FIELDS)) {
      const text = $(name).value.trim();
      if (text && !$(name).disabled) draft[key] = typed(name, text);
    }
    if (this.modes.asked) draft.mode = this.modes.asked;
    if (this.loras.chosen.length) draft.loras = this.loras.chosen;
    if (this.picture.file) draft.strength = this.picture.strength;
    if (this.madeOf) draft.made_of = this.madeOf;
    return draft;
  }

  clear() {
    $("error").hidden = true;
    $("notice").hidden = true;
    for (const field of this.form.querySelectorAll("[aria-invalid]")) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-errormessage");
    }
  }

  showError(problem) {
    this.clear();
    $("error").textContent = problem.message;
    $("error").hidden = false;
    $("error").scrollIntoView({ block: "nearest" });
    const field = $(ALIASES[problem.field] ?? problem.field);
    if (!field || !this.form.contains(field)) return;
    if ($("more").contains(field)) $("more").open = true;
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-errormessage", "error");
    field.focus();
  }

  showNotice(text) {
    this.clear();
    $("notice").textContent = text;
    $("notice").hidden = false;
  }

  // Takes GET /api/modes and shows the chosen mode's defaults and bounds.
  setModes(answer) {
    const shown = JSON.stringify(answer);
    if (this.shown === shown) return; // a list that is open would close
    this.shown = shown;
    this.mostBytes = answer.max_image_bytes;
    this.modes.show(answer);
    this.#showMode();
  }

  #showMode() {
    const mode = this.modes.chosen;
    if (!mode) return;
    const [width, height] = mode.default_size;
    const step = mode.size_step;
    $("size").placeholder = `${width}x${height}`;
    $("count").placeholder = "1";
    $("steps").placeholder = mode.default_steps;
    $("guidance").placeholder = mode.default_guidance;
    $("negative").placeholder = mode.default_negative || "nothing";
    $("negative").disabled = !mode.negative_allowed;
    $("refiner-part").hidden = $("refiner").disabled = mode.refiner_from === null;
    $("refiner").placeholder = mode.refiner_from ?? "";
    fill($("sampler"), [
      ["", `${mode.default_sampler} (default)`],
      ...mode.samplers.map((name) => [name, name]),
    ]);
    if (this.sampler && mode.samplers.includes(this.sampler)) $("sampler").value = this.sampler;
    this.sampler = null;
    this.loras.setMode(mode);
    this.picture.setDefaults({ strength: mode.default_strength, bytes: this.mostBytes });
    $("size-help").textContent = mode.sizes.length
      ? `${mode.sizes.map((sides) => sides.join("x")).join(", ")}.`
      : `Sides of ${mode.min_size} to ${mode.max_size}, by ${step}.`;
    $("count-help").textContent = mode.max_count > 1 ? `1 to ${mode.max_count}.` : "1 at a time.";
    $("steps-help").textContent = `1 to ${mode.max_steps}; more take longer.`;
    $("guidance-help").textContent = `1 to ${mode.max_guidance}; weight of the prompt.`;
    this.#showExamples(mode.examples.length ? mode.examples.slice(0, 4) : EXAMPLES);
  }

  #showExamples(examples) {
    this.prompt.placeholder = `/imagine ${examples[0]}`;
    $("examples").replaceChildren(
      ...examples.map((text) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.addEventListener("click", () => this.example(`/imagine ${text}`));
        const item = document.createElement("li");
        item.append(button);
        return item;
      }),
    );
  }
}

// Fills a list of choices and keeps what was chosen, where it is still there.
function fill(select, choices) {
  const chosen = select.value;
  select.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
}
