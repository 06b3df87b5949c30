// The picture to start from: chosen, dropped on the page or pasted; shown small until it is removed.

import { Problem } from "./api.js";

const $ = (id) => document.getElementById(id);

export class Picture {
  // changed() is called when another picture, or none, is there; failed(problem) when it can't be.
  constructor({ changed, failed }) {
    this.file = null;
    this.changed = changed;
    this.failed = failed;
    $("image").addEventListener("change", () => this.take($("image").files[0]));
    $("image-remove").addEventListener("click", () => {
      this.take(null);
      $("prompt").focus();
    });
    $("strength").addEventListener("input", () => this.#showStrength());
    document.addEventListener("paste", (event) => this.#takeFirst(event, event.clipboardData));
    document.addEventListener("drop", (event) => this.#takeFirst(event, event.dataTransfer));
    // Else the browser would leave the page and open the file.
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("dragenter", () => $("ask").classList.add("over"));
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) $("ask").classList.remove("over");
    });
  }

  get strength() {
    return Number($("strength").value);
  }

  // Shows what a mode draws anew unless told, and how large a picture may be.
  setDefaults({ strength, bytes }) {
    this.most = bytes;
    if (this.file) return;
    $("strength").value = strength;
    this.#showStrength();
  }

  take(file) {
    if (file && this.most && file.size > this.most) {
      const most = Math.floor(this.most / 2 ** 20);
      this.failed(new Problem(`image: ${file.name} is too large. Allowed: ${most} MB.`, { field: "image" }));
      file = null;
    }
    URL.revokeObjectURL($("image-preview").src);
    this.file = file ?? null;
    $("source").hidden = !this.file;
    if (this.file) {
      $("image-preview").src = URL.createObjectURL(this.file);
      $("image-name").textContent = this.file.name;
    } else {
      $("image-preview").removeAttribute("src");
      $("image").value = "";
    }
    this.changed();
  }

  #takeFirst(event, data) {
    $("ask").classList.remove("over");
    const file = [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (event.type === "drop" && data?.files.length) event.preventDefault();
    if (!file) return;
    event.preventDefault();
    this.take(file);
  }

  #showStrength() {
    $("strength-shown").textContent = this.strength;
  }
}
