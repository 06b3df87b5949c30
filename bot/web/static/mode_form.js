// One mode of the draft as a form. A field that is left empty stays out of the file.

import { $, make } from "./frame.js";

// Key, label, kind, what stands in an empty field; a text alone begins a part that folds out.
const FIELDS = [
  ["title", "Title", "text", "The mode's name"],
  ["model", "Model", "text", "A path below model_root"],
  ["description", "Description", "wide", "One line"],
  ["default_size", "Size", "text", "What the model was trained at"],
  ["default_steps", "Steps", "number", "25"],
  ["default_guidance", "Guidance", "number", "7"],
  ["default_sampler", "Sampler", "sampler", ""],
  ["default_negative", "Keep away from, unless told", "wide", ""],
  ["prompt_prefix", "Before every prompt", "wide", ""],
  ["prompt_suffix", "Behind every prompt", "wide", ""],
  ["negative_always", "Always keep away from", "wide", ""],
  "What people may ask for",
  ["negative_allowed", "Members may say what to keep away from", "yes", ""],
  ["nsfw", "NSFW: for age-restricted channels alone", "no", ""],
  ["sizes", "Only these sizes", "list", "512x512, 512x768"],
  ["samplers", "Only these samplers", "list", "Euler a, DDIM"],
  ["allowed_roles", "Only for roles", "list", "Artists"],
  ["min_size", "Shortest side", "number", ""],
  ["max_size", "Longest side", "number", ""],
  ["max_steps", "Most steps", "number", "100"],
  ["max_guidance", "Highest guidance", "number", "30"],
  ["max_count", "Most pictures at once", "number", "4"],
  ["max_loras", "Most LoRAs in a request", "number", "3"],
  ["max_lora_strength", "Strongest LoRA", "number", "2"],
  ["loras_allowed", "LoRAs that members may add", "list", "* allows all"],
  "How the model is used",
  ["clip_skip", "Clip skip", "number", ""],
  ["prediction_type", "Prediction", "prediction", ""],
  ["vae", "VAE", "text", "The model's own"],
  ["refiner", "Refiner", "text", "None"],
  ["loras", "LoRAs, one on each line", "lines", "loras/name.safetensors 0.8"],
  ["exact", "Exact: the same bits whoever else draws, and slower alone", "no", ""],
  ["compile", "Compiled: faster once its code is made; not with exact", "no", ""],
];

export class ModeForm {
  // changed(name, values) is called with the keys that were changed here, null for those left out.
  constructor({ changed }) {
    this.changed = changed;
    this.name = null;
    this.values = {}; // what the mode says
    this.touched = {}; // what was typed here since it was shown
    this.inputs = new Map();
    let part = $("fields");
    for (const field of FIELDS) {
      if (typeof field === "string") {
        part = make("div", { className: "fields" });
        $("fields").append(make("details", {}, make("summary", { textContent: field }), part));
      } else part.append(this.#field(field));
    }
    $("fields").addEventListener("submit", (event) => event.preventDefault());
    $("fields").addEventListener("input", (event) => this.#typed(event.target.name));
  }

  // Offers the samplers that there are.
  offer(samplers) {
    this.inputs.get("default_sampler").input.append(...samplers.map((name) => new Option(name, name)));
  }

  // Shows a mode's values; null for one that can't be read.
  show(name, values) {
    this.name = name;
    this.touched = {};
    this.values = values ?? {};
    for (const [key, { input, kind }] of this.inputs) {
      const value = this.values[key];
      const simple = isSimple(kind, value);
      input.disabled = !simple || values === null;
      input.title = simple ? "" : "Written in a way that only the YAML has room for";
      if (input.type === "checkbox") input.checked = value ?? kind === "yes";
      else input.value = simple ? written(kind, value) : JSON.stringify(value);
    }
  }

  get isTouched() {
    return Object.keys(this.touched).length > 0;
  }

  forget() {
    this.name = null;
  }

  // Marks the fields that something is wrong with.
  mark(problems) {
    for (const [key, { input, told }] of this.inputs) {
      const start = `modes.${this.name}.${key}`;
      const found = problems.find((problem) => problem.key === start || problem.key.startsWith(`${start}[`) || problem.key.startsWith(`${start}.`));
      told.textContent = found?.detail ?? "";
      told.hidden = !found;
      const part = found && input.closest("details");
      if (part) part.open = true;
      if (found) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }

  #typed(key) {
    const { input, kind } = this.inputs.get(key);
    this.touched[key] = read(kind, input, this.values[key]);
    this.changed(this.name, { ...this.touched });
  }

  #field([key, label, kind, hint]) {
    const id = `field-${key}`;
    const input = make(kind === "lines" ? "textarea" : ["sampler", "prediction"].includes(kind) ? "select" : "input", { id, name: key, autocomplete: "off", disabled: true });
    const told = make("small", { id: `${id}-told`, className: "bad", hidden: true });
    input.setAttribute("aria-describedby", told.id);
    const caption = make("label", { htmlFor: id, textContent: label });
    const box = make("p", {});
    if (kind === "yes" || kind === "no") {
      input.type = "checkbox";
      box.append(make("span", { className: "tick" }, input, caption));
    } else {
      if (kind === "sampler") input.append(new Option("Euler a (default)", ""));
      else if (kind === "prediction") input.append(...["", "epsilon", "v_prediction"].map((name) => new Option(name || "As the model says", name)));
      else input.placeholder = hint;
      if (kind === "number") input.inputMode = "decimal";
      if (key === "model" || key === "refiner") input.setAttribute("list", "known-models");
      box.append(caption, input);
    }
    box.append(told);
    box.classList.toggle("wide", ["wide", "lines"].includes(kind));
    this.inputs.set(key, { input, kind, told });
    return box;
  }
}

function isSimple(kind, value) {
  if (value === undefined || value === null) return true;
  if (kind === "list") return value === "*" || (Array.isArray(value) && value.every((item) => typeof item !== "object")) || typeof value !== "object";
  if (kind === "lines") return Array.isArray(value) && value.every((item) => typeof item === "string" || isLora(item));
  if (kind === "text" && Array.isArray(value)) return value.length === 2; // a size as [512, 768]
  return typeof value !== "object";
}

function isLora(item) {
  return Object.keys(item).every((key) => ["path", "strength"].includes(key)) && typeof item.path === "string";
}

function written(kind, value) {
  if (value === undefined || value === null) return "";
  if (kind === "list") return [value].flat().join(", ");
  if (kind === "lines") return value.map((item) => (typeof item === "string" ? item : [item.path, item.strength].filter((part) => part !== undefined).join(" "))).join("\n");
  return Array.isArray(value) ? value.join("x") : String(value);
}

// What a field says as the file has it; null for nothing. What is no number goes as it was typed:
// the answer says what is allowed.
function read(kind, input, before) {
  if (kind === "yes") return input.checked ? null : false;
  if (kind === "no") return input.checked ? true : null;
  const text = input.value.trim();
  if (!text) return null;
  if (kind === "number") return numeric(text);
  if (kind === "list") return text === "*" ? text : text.split(",").map((item) => item.trim()).filter(Boolean);
  if (kind === "lines") return text.split("\n").map((line) => lora(line.trim())).filter(Boolean);
  return Array.isArray(before) && text === before.join("x") ? before : text;
}

function numeric(text) {
  const number = Number(text.replace(",", "."));
  return Number.isFinite(number) ? number : text;
}

function lora(line) {
  const [, path, strength] = line.match(/^(.*?)\s+(-?\d+(?:[.,]\d+)?)$/) ?? [null, line, null];
  if (!path) return null;
  return strength === null ? path : { path, strength: numeric(strength) };
}
