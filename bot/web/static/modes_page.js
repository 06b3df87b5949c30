// The modes: which there are and what is loaded; for admins, switching, loading and editing.

import { call } from "./api.js";
import { Editor } from "./mode_editor.js";
import { $, follow, isAdmin, make, mayDraw, once, setText } from "./frame.js";

const template = $("mode-row");
const rows = new Map(); // by name

const editor = isAdmin ? new Editor({ tell, fail }) : null;

function tell(...words) {
  $("error").hidden = true;
  $("notice").replaceChildren(...words);
  $("notice").hidden = false;
  $("notice").scrollIntoView({ block: "nearest" });
}

function fail(problem) {
  $("notice").hidden = true;
  $("error").textContent = problem.message;
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

class Row {
  constructor(name) {
    this.name = name;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.badges = this.element.querySelector(".badges");
    this.actions = this.element.querySelector(".actions");
  }

  update(mode, { current, default: first }) {
    const part = (selector) => this.element.querySelector(selector);
    setText(part("h3"), mode.title);
    const facts = [mode.name, mode.model, mode.size.join(" × "), mode.nsfw && "NSFW"];
    const roles = mode.roles.length && `on Discord for ${mode.roles.join(" or ")}`;
    setText(part(".who"), [...facts, roles].filter(Boolean).join(" · "));
    const missing = mode.missing && `${mode.missing} is missing: nobody can draw with it.`;
    setText(part(".stage"), missing || mode.description);
    part(".stage").classList.toggle("bad", Boolean(missing));
    const loaded = mode.loaded_on.length > 0;
    const badges = [
      mode.name === current && "current",
      mode.name === first && "default",
      loaded ? `loaded on ${mode.loaded_on.join(", ")}` : "not loaded",
    ].filter(Boolean);
    const shape = JSON.stringify([badges, loaded, mode.missing, mode.name === current]);
    if (shape === this.shape) return;
    this.shape = shape;
    this.badges.replaceChildren(...badges.map((text) => make("span", { className: "badge", textContent: text })));
    this.#showActions(mode, { loaded, isCurrent: mode.name === current });
  }

  #showActions(mode, { loaded, isCurrent }) {
    const focused = document.activeElement?.dataset?.verb;
    const hadFocus = this.actions.contains(document.activeElement);
    const button = (label, verb, work) => {
      const element = make("button", { type: "button", textContent: label, ariaLabel: `${label}: ${mode.title}` });
      element.dataset.verb = verb;
      element.addEventListener("click", () => once(element, work, fail));
      return element;
    };
    const { name, title } = mode;
    const actions = [];
    if (mayDraw && !mode.missing) {
      const href = `/?mode=${encodeURIComponent(name)}`;
      actions.push(make("a", { className: "button", href, textContent: "Draw", ariaLabel: `Draw with ${title}` }));
    }
    if (isAdmin) {
      if (!isCurrent && !mode.missing)
        actions.push(
          button("Make current", "switch", async () => {
            await call("POST", "/api/modes/switch", { mode: name });
            tell(`Switching to ${title}. It draws as soon as its model is loaded.`);
          }),
        );
      if (loaded)
        actions.push(
          button("Unload", "memory", async () => {
            await call("POST", "/api/models/unload", { mode: name });
            tell(`${title}'s memory is given back.`);
          }),
        );
      else if (!mode.missing)
        actions.push(
          button("Load", "memory", async () => {
            tell(`Loading ${title}…`);
            const { seconds } = await call("POST", "/api/models/load", { mode: name });
            tell(`${title} is loaded${seconds ? ` (${seconds.toFixed(1)} s)` : ""}.`);
          }),
        );
      actions.push(button("Edit", "edit", async () => editor.open(name)));
    }
    this.actions.replaceChildren(...actions);
    if (hadFocus) (actions.find(({ dataset }) => dataset.verb === focused) ?? actions[0])?.focus();
  }
}

function show(state) {
  const names = new Set(state.modes.map(({ name }) => name));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    row.element.remove();
    rows.delete(name);
  }
  state.modes.forEach((mode, index) => {
    if (!rows.has(mode.name)) rows.set(mode.name, new Row(mode.name));
    const row = rows.get(mode.name);
    row.update(mode, state);
    const there = $("modes").children[index];
    if (there !== row.element) $("modes").insertBefore(row.element, there ?? null);
  });
  const told = state.problems.map((problem) => `The file as it is now is not in force: ${problem}`);
  setText($("file-problem"), told.join("\n"));
  $("file-problem").hidden = told.length === 0;
  editor?.fileMayHaveChanged();
}

follow("/api/modes/events", { modes: show });
