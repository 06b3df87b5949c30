// Brings the form, the cards and the server together.

import { base64, call, Problem } from "./api.js";
import { Card } from "./card.js";
import { Form } from "./form.js";
import { $, announce, follow, once } from "./frame.js";
import { announcementOf, modeCommand, modeListOf } from "./words.js";

const DISMISSED = "dream-lab-dismissed";

const cards = new Map(); // by job id
const form = new Form({ send, example });

function example(text) {
  form.prompt.value = text;
  send();
}

// Requests go out one after the other, in the order in which they were typed.
let sending = Promise.resolve();
let underWay = null;

function send() {
  const draft = form.draft();
  const file = form.picture.file;
  const shape = JSON.stringify([draft, file?.name, file?.size, file?.lastModified]);
  if (shape === underWay) return; // pressed twice
  underWay = shape;
  form.clear();
  sending = sending.then(async () => {
    await deliver(draft, file);
    if (underWay === shape) underWay = null;
  });
}

async function deliver(draft, file) {
  try {
    const command = modeCommand(draft.prompt);
    if (command) await runModeCommand(command);
    else {
      if (file) draft.image = await base64(file);
      meet(await call("POST", "/api/jobs", draft));
      form.madeOf = null;
      // On a phone the keyboard would hide the picture.
      if (matchMedia("(pointer: coarse)").matches) form.prompt.blur();
    }
  } catch (problem) {
    form.showError(problem);
  }
}

async function runModeCommand({ verb, name }) {
  if (verb === "switch") {
    const mode = await call("POST", "/api/modes/switch", { mode: name });
    form.showNotice(`Switching to ${mode.title}. Its model is being loaded.`);
  } else {
    form.showNotice(modeListOf(await call("GET", "/api/modes")));
  }
}

async function act(verb, job, button) {
  if (verb === "dismiss") {
    dismiss(job.id);
    remove(job.id);
    return;
  }
  await once(button, () => change(verb, job), (problem) => form.showError(problem));
}

async function change(verb, job) {
  const path = `/api/jobs/${job.id}`;
  if (verb === "from") {
    form.picture.take(await pictureOf(job));
    form.prompt.focus();
  } else if (verb === "delete") {
    await call("DELETE", path);
    remove(job.id);
  } else if (verb === "cancel") {
    await call("POST", `${path}/cancel`);
  } else if (verb === "upscale") {
    meet(await call("POST", `${job.images[0].url}/upscale`)).element.focus();
  } else {
    meet(await call("POST", `${path}/again`, { vary: verb === "vary" })).element.focus();
  }
}

async function pictureOf({ images: [{ url, seed }] }) {
  const answer = await fetch(url).catch(() => null);
  if (!answer?.ok) throw new Problem("The picture is not there any more.");
  return new File([await answer.blob()], `${seed}.png`, { type: "image/png" });
}

// Shows a job that was just asked for. Once the stream has told of it, the answer is old news.
function meet(job) {
  if (!cards.has(job.id)) show(job, { isNews: true });
  return cards.get(job.id);
}

// Shows what the stream says of a job.
function show(job, { isNews = false } = {}) {
  const known = cards.get(job.id);
  const before = known?.job.status;
  if (known) known.update(job);
  else insert(new Card(job, act));
  const words = isNews ? announcementOf(job, before) : null;
  if (words) announce(words);
}

function insert(card) {
  cards.set(card.job.id, card);
  const older = [...$("jobs").children].find(
    (element) => cards.get(element.dataset.id).job.created_at < card.job.created_at,
  );
  card.element.dataset.id = card.job.id;
  $("jobs").insertBefore(card.element, older ?? null);
  showEmptiness();
}

function remove(id) {
  const card = cards.get(id);
  if (!card) return;
  const hadFocus = card.element.contains(document.activeElement);
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  card.element.remove();
  cards.delete(id);
  if (hadFocus) (next ?? form.prompt).focus();
  showEmptiness();
}

function showEmptiness() {
  $("empty").hidden = cards.size > 0;
  $("pictures").hidden = cards.size === 0;
}

// Requests that came to nothing stay in the history; which of them were read is kept here.
function dismissed() {
  try {
    return new Set(JSON.parse(localStorage.getItem(DISMISSED) ?? "[]"));
  } catch {
    return new Set();
  }
}

function dismiss(id) {
  try {
    localStorage.setItem(DISMISSED, JSON.stringify([...dismissed(), id].slice(-200)));
  } catch {
    // A browser that keeps nothing shows it again after a reload.
  }
}

function isWorthShowing(job, read) {
  if (job.status === "done") return job.images.length > 0; // none: they were deleted
  return job.status !== "cancelled" && !read.has(job.id);
}

async function refreshModes() {
  try {
    form.setModes(await call("GET", "/api/modes"));
  } catch {
    // The status says that the server is away; it tells when it is back.
  }
}

follow("/api/events", {
  jobs({ jobs }) {
    const read = dismissed();
    const worthy = jobs.filter((job) => isWorthShowing(job, read));
    const ids = new Set(worthy.map((job) => job.id));
    for (const id of [...cards.keys()]) if (!ids.has(id)) remove(id);
    for (const job of worthy) show(job);
    showEmptiness();
    refreshModes();
  },
  job(job) {
    show(job, { isNews: true });
    // The first picture of a mode is shown beside it.
    if (job.status === "done" && !form.modes.all.get(job.request.mode)?.sample) refreshModes();
  },
  gone: ({ id }) => remove(id),
  status(status) {
    if (status.mode !== form.modes.current) refreshModes();
  },
});

// The gallery leads here with what is to be changed, and the list of modes with one to draw with.
async function begin() {
  const asked = new URLSearchParams(location.search);
  if (!asked.size) return;
  history.replaceState(null, "", "/"); // a reload begins with the draft as it is then
  try {
    if (asked.has("mode")) {
      form.choose(asked.get("mode"));
    } else if (asked.has("job")) {
      const job = await call("GET", `/api/jobs/${encodeURIComponent(asked.get("job"))}`);
      form.fill(job);
      const image = job.images.find(({ id }) => id === asked.get("image"));
      if (image) form.picture.take(await pictureOf({ images: [image] }));
    }
    form.prompt.focus();
  } catch (problem) {
    form.showError(problem);
  }
}

begin();

// The modes file may be edited at any time; these are the moments at which it matters here.
$("more").addEventListener("toggle", refreshModes);
addEventListener("focus", refreshModes);
