// The LoRAs that are laid over the mode's model, each with its strength.

const $ = (id) => document.getElementById(id);
const template = document.getElementById("lora-row");

export class Loras {
  constructor() {
    this.mode = null;
    this.added = 0;
    $("lora").addEventListener("change", () => {
      this.#add($("lora").value);
      $("lora").value = "";
    });
  }

  get chosen() {
    return [...$("loras").children].map((row) => ({
      name: row.dataset.name,
      strength: Number(row.querySelector("input").value),
    }));
  }

  // Offers what a mode allows; what was chosen stays where it is allowed, too.
  setMode(mode) {
    this.mode = mode;
    $("lora-part").hidden = mode.loras.length === 0;
    $("lora-help").textContent = `Styles laid over the model, ${mode.max_loras} at most.`;
    for (const row of [...$("loras").children]) {
      if (!mode.loras.includes(row.dataset.name)) row.remove();
      else this.#bound(row.querySelector("input"));
    }
    this.#offer();
  }

  #add(name) {
    if (!name) return;
    const row = template.content.firstElementChild.cloneNode(true);
    const [label, slider, shown, remove] = row.children;
    row.dataset.name = name;
    label.textContent = name;
    label.htmlFor = shown.htmlFor = slider.id = `lora-${this.added++}`;
    this.#bound(slider);
    slider.value = 1;
    slider.addEventListener("input", () => (shown.textContent = slider.value));
    remove.ariaLabel = `Remove ${name}`;
    remove.addEventListener("click", () => {
      row.remove();
      this.#offer();
      $("lora").focus();
    });
    shown.textContent = slider.value;
    $("loras").append(row);
    this.#offer();
  }

  #bound(slider) {
    slider.min = -this.mode.max_lora_strength;
    slider.max = this.mode.max_lora_strength;
  }

  #offer() {
    const taken = new Set(this.chosen.map(({ name }) => name));
    const free = this.mode.loras.filter((name) => !taken.has(name));
    const full = taken.size >= this.mode.max_loras;
    const first = new Option(full ? "No more in one request" : "Add one", "");
    $("lora").replaceChildren(first, ...free.map((name) => new Option(name, name)));
    $("lora").disabled = full;
  }
}
