// One picture large: how it was drawn, its family, and what can be made of it.

import { call } from "./api.js";
import { $, isAdmin, make, once, setText } from "./frame.js";
import { factsOf, kinshipOf, stageOf } from "./words.js";

export class Detail {
  // opened(job id, picture number) is called when another one is wanted, gone(job id) after a deletion.
  constructor({ opened, gone }) {
    this.opened = opened;
    this.gone = gone;
    this.job = null;
    this.awaited = null; // the id of a job that was asked for here
    $("close").addEventListener("click", () => $("detail").close());
    $("detail").addEventListener("click", (event) => {
      if (event.target === $("detail")) $("detail").close(); // beside it
    });
  }

  async show(id, number) {
    if (id === null) {
      this.job = null;
      if ($("detail").open) $("detail").close();
      return;
    }
    if (this.job?.id !== id) await this.#load(id);
    if (this.job?.id === id) this.#showPicture(Math.min(number, this.job.images.length - 1));
  }

  // Takes news of any job: what was asked for here, and what belongs to the family.
  hear(job) {
    if (job.id === this.awaited) {
      const words = job.status === "done" ? "Done." : (job.error ?? stageOf(job));
      this.#tell(`${words} `, make("a", { href: `/gallery?job=${job.id}`, textContent: "Look at it" }));
      if (job.status === "done") this.#showFamily();
    } else if (this.job && job.status === "done" && job.parent_id === this.job.id) this.#showFamily();
  }

  async #load(id) {
    this.wanted = id;
    try {
      const job = await call("GET", `/api/jobs/${encodeURIComponent(id)}`);
      if (this.wanted !== id) return;
      this.job = job;
    } catch (problem) {
      if (this.wanted !== id) return;
      $("error").textContent = problem.message;
      $("error").hidden = false;
      return;
    }
    for (const element of [$("detail-error"), $("detail-news")]) element.hidden = true;
    this.awaited = null;
    setText($("detail-prompt"), this.job.request.prompt);
    setText($("note"), this.job.note ?? "");
    $("note").hidden = !this.job.note;
    this.#showFamily();
    if (!$("detail").open) $("detail").showModal();
    $("detail-prompt").focus();
    $("detail").scrollTop = 0;
  }

  #showPicture(number) {
    const { images, request } = this.job;
    const image = images[number];
    this.image = image;
    const several = images.length > 1;
    $("picture").hidden = !image;
    if (image) {
      const { url, width, height } = image;
      const alt = several ? `${request.prompt} (${number + 1})` : request.prompt;
      $("picture").href = url;
      $("picture").replaceChildren(make("img", { src: url, alt, width, height }));
    }
    $("siblings").hidden = !several;
    $("siblings").replaceChildren(
      ...(several ? images : []).map((other, index) => {
        const picture = make("img", { src: `${other.url}/small`, alt: `Picture ${index + 1}` });
        const button = make("button", { type: "button", ariaPressed: String(index === number) }, picture);
        button.addEventListener("click", () => this.opened(this.job.id, index));
        return make("li", {}, button);
      }),
    );
    this.#showFacts();
    this.#showActions();
  }

  #showFacts() {
    const facts = factsOf({ ...this.job, images: this.image ? [this.image] : [] });
    const asked = new Date(this.job.created_at).toLocaleString();
    $("facts").replaceChildren(
      ...[...facts, ["Asked for", asked]].map(([name, value]) =>
        make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })),
      ),
    );
  }

  #showActions() {
    const { id, images } = this.job;
    const button = (label, work, className = "") => {
      const element = make("button", { type: "button", textContent: label, className });
      element.addEventListener("click", () => once(element, work, (problem) => this.#fail(problem)));
      return element;
    };
    const made = (path, body) => async () => this.#await(await call("POST", path, body));
    const link = (label, href) => make("a", { className: "button", textContent: label, href });
    const image = this.image && `/api/images/${this.image.id}`;
    const download = image && make("a", { className: "button", textContent: "Download", href: `${image}?download=true`, download: "" });
    const remove = async () => {
      const many = images.length > 1 ? `all ${images.length} pictures of this request` : "this picture";
      if (!confirm(`Delete ${many} for good?`)) return;
      await call("DELETE", `/api/jobs/${id}`);
      this.gone(id);
    };
    const show = async () => {
      await call("PUT", `${image}/sample`);
      const undo = button("Take it back", async () => {
        await call("DELETE", `${image}/sample`);
        this.#tell("It is shown to you alone again.");
      });
      this.#tell(`All who draw here see it beside the mode ${this.job.request.mode}. `, undo);
    };
    $("actions").replaceChildren(
      button("Again", made(`/api/jobs/${id}/again`, { vary: false })),
      ...(image ? [button("Vary", made(`${image}/vary`)), button("Upscale", made(`${image}/upscale`))] : []),
      link("Edit", `/?job=${id}`),
      ...(image ? [link("Start from it", `/?job=${id}&image=${this.image.id}`), download] : []),
      ...(image && isAdmin ? [button("Show beside its mode", show)] : []),
      button("Delete", remove, "quiet"),
    );
  }

  #await(job) {
    this.awaited = job.id;
    if (job.status === "done") this.hear(job); // it was asked for before
    else this.#tell(`${stageOf(job)}. It comes here as soon as it is drawn.`);
    this.#showFamily();
  }

  #tell(...words) {
    $("detail-error").hidden = true;
    $("detail-news").replaceChildren(...words);
    $("detail-news").hidden = false;
  }

  #fail(problem) {
    $("detail-news").hidden = true;
    $("detail-error").textContent = problem.message;
    $("detail-error").hidden = false;
  }

  async #showFamily() {
    const { id } = this.job;
    let family = [];
    try {
      ({ family } = await call("GET", `/api/jobs/${encodeURIComponent(id)}/family`));
    } catch {
      // Without it the picture is still worth looking at; the status says where the server is away.
    }
    if (this.job?.id !== id) return;
    $("family-part").hidden = family.length < 2;
    const branches = new Map();
    for (const member of family) {
      const parent = member.parent_id;
      branches.set(parent, [...(branches.get(parent) ?? []), member]);
    }
    const grown = (parent) => (branches.get(parent) ?? []).map((member) => this.#member(member, grown(member.id)));
    $("family").replaceChildren(...grown(null));
  }

  #member(member, children) {
    const { id, prompt, kinship, number, status, image_ids: [image] } = member;
    const words = kinshipOf(kinship, number);
    const state = status === "done" ? (image ? "" : ", deleted") : `, ${stageOf({ ...member, position: null })}`;
    const picture = image
      ? make("img", { src: `/api/images/${image}/small`, alt: "", loading: "lazy" })
      : make("span", { className: "gap" });
    const text = make("span", {}, make("b", { textContent: words + state }), ` ${prompt}`);
    const link = make("a", { href: `/gallery?job=${id}`, className: "kin" }, picture, text);
    if (id === this.job.id) link.ariaCurrent = "true";
    link.addEventListener("click", (event) => {
      event.preventDefault();
      this.opened(id, 0);
    });
    const item = make("li", {}, link);
    if (children.length) item.append(make("ul", { className: "family" }, ...children));
    return item;
  }
}
