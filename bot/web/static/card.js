// One job as a card. update() changes only what is different, so that focus and reading stay put.

import { make, setText } from "./frame.js";
import { endOf, factsOf, stageOf } from "./words.js";

const template = document.getElementById("card");

export class Card {
  // act(verb, job, button): "again", "vary", "upscale", "from", "cancel", "delete" and "dismiss".
  constructor(job, act) {
    this.act = act;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.canvas = this.element.querySelector(".canvas");
    this.prompt = this.element.querySelector(".prompt");
    this.way = this.element.querySelector(".way");
    this.stage = this.element.querySelector(".stage");
    this.progress = this.element.querySelector("progress");
    this.error = this.element.querySelector(".error");
    this.facts = this.element.querySelector(".facts");
    this.actions = this.element.querySelector(".actions");
    this.update(job);
  }

  get ended() {
    return ["done", "failed", "cancelled"].includes(this.job.status);
  }

  update(job) {
    const before = this.job?.status;
    this.job = job;
    this.element.dataset.status = job.status;
    setText(this.prompt, job.request.prompt);
    this.#showWay();
    setText(this.error, job.error ?? "");
    this.error.hidden = !job.error;
    this.#showFacts();
    if (job.status !== before) this.#showActions();
    if (job.status === "done" && before !== "done") this.#showPictures();
    else if (!this.ended) this.#showPreview();
    else if (job.status !== "done") this.canvas.replaceChildren();
    // A picture that has not begun, or never came, needs no room.
    this.canvas.hidden = !["running", "done"].includes(job.status);
    this.element.classList.toggle("bare", this.canvas.hidden);
  }

  #showWay() {
    this.way.hidden = this.job.status === "done" || this.job.status === "failed";
    setText(this.stage, stageOf(this.job) + endOf(this.job));
    clearTimeout(this.ticking);
    if (!this.ended && this.job.expected_at)
      this.ticking = setTimeout(() => this.element.isConnected && this.#showWay(), 1000);
    this.progress.hidden = this.job.status !== "running";
    this.progress.setAttribute("aria-label", `Progress of ${this.job.request.prompt}`);
    const fraction = this.job.progress?.stage === "loading" ? 0 : this.job.progress?.fraction;
    if (fraction) this.progress.value = fraction;
    else this.progress.removeAttribute("value"); // it moves without saying how far
  }

  #showFacts() {
    const facts = factsOf(this.job);
    const shown = facts.flat().join("\n");
    if (this.shownFacts === shown) return;
    this.shownFacts = shown;
    this.facts.replaceChildren(
      ...facts.map(([name, value]) =>
        make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })),
      ),
    );
  }

  #showPreview() {
    const { width, height } = this.job.request;
    const preview = this.job.progress?.preview;
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    if (!preview) return;
    const shown = this.canvas.querySelector("img.preview");
    if (shown) shown.src = preview;
    else this.canvas.replaceChildren(make("img", { className: "preview", src: preview, alt: "" }));
  }

  #showPictures() {
    const { prompt } = this.job.request;
    const several = this.job.images.length > 1;
    this.canvas.style.aspectRatio = "";
    this.canvas.classList.toggle("several", several);
    const pictures = this.job.images.map((image, index) => {
      const alt = several ? `${prompt} (${index + 1})` : prompt;
      const { url: src, width, height } = image;
      const picture = make("img", { src, alt, width, height });
      // The preview stays until the picture itself is there, so that nothing flickers.
      return make("a", { href: src, target: "_blank", title: "Open the picture alone" }, picture);
    });
    this.canvas.replaceChildren(...pictures);
  }

  #showActions() {
    const hadFocus = this.actions.contains(document.activeElement);
    this.actions.replaceChildren(...this.#actions());
    if (hadFocus) this.element.focus();
  }

  #actions() {
    const button = (label, verb, className = "") => {
      const element = make("button", { type: "button", textContent: label, className });
      element.addEventListener("click", () => this.act(verb, this.job, element));
      return element;
    };
    const { status, images } = this.job;
    if (!this.ended) return [button("Cancel", "cancel")];
    if (status !== "done") return [button("Try again", "again"), button("Dismiss", "dismiss")];
    const several = images.length > 1;
    const downloads = images.map((image, index) =>
      make("a", {
        className: "button",
        href: `${image.url}?download=true`,
        textContent: several ? index + 1 : "Download",
        ariaLabel: several ? `Download picture ${index + 1}` : null,
        download: "",
      }),
    );
    if (several) downloads.unshift(make("span", { textContent: "Download", className: "word" }));
    return [
      button("Again", "again"),
      button("Vary", "vary"),
      ...(several ? [] : [button("Upscale", "upscale"), button("Start from it", "from")]),
      make("span", { className: "downloads" }, ...downloads),
      button("Delete", "delete", "quiet"),
    ];
  }
}
