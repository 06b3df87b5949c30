// The modes as cards to choose from, and why the last edit of their file is not in force.

import { modeNoteOf } from "./words.js";

const $ = (id) => document.getElementById(id);
const template = document.getElementById("mode-card");

export class Modes {
  // changed() is called when another one is chosen.
  constructor(changed) {
    this.all = new Map(); // by name
    this.current = null;
    this.asked = null; // the name of another than the current one
    $("mode").addEventListener("change", (event) => {
      const name = event.target.value;
      this.asked = name === this.current ? null : name;
      changed();
    });
  }

  // Chooses a mode by name; one that there is not (yet) is chosen as soon as it comes.
  ask(name) {
    this.asked = name === this.current ? null : name;
    for (const radio of $("mode-cards").querySelectorAll("input")) radio.checked = radio.value === name;
  }

  get chosen() {
    return this.all.get(this.asked) ?? this.all.get(this.current);
  }

  // Takes GET /api/modes.
  show({ current, modes, problems }) {
    this.all = new Map(modes.map((mode) => [mode.name, mode]));
    this.current = current;
    if (this.asked === current || !this.all.has(this.asked)) this.asked = null;
    const hadFocus = $("mode-cards").contains(document.activeElement);
    $("mode-cards").replaceChildren(...modes.map((mode) => this.#card(mode)));
    if (hadFocus) $("mode-cards").querySelector(":checked")?.focus();
    $("mode-problem").hidden = problems.length === 0;
    $("mode-problem").textContent = problems.join("\n");
  }

  #card(mode) {
    const card = template.content.firstElementChild.cloneNode(true);
    const radio = card.querySelector("input");
    radio.value = mode.name;
    radio.checked = mode === this.chosen;
    const sample = card.querySelector("img");
    sample.hidden = !mode.sample;
    if (mode.sample) sample.src = mode.sample;
    card.querySelector(".title").textContent = mode.title;
    card.querySelector(".note").textContent = modeNoteOf(mode, this.current);
    card.querySelector(".description").textContent = mode.description;
    return card;
  }
}
