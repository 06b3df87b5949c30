// All pictures, newest first: found by words and mode, page by page. What is shown stands in the
// address, so that a reload, the back button and a link show it again.

import { call } from "./api.js";
import { Detail } from "./detail.js";
import { $, follow, make, setText } from "./frame.js";

const SOON = 250; // milliseconds without another key until the search begins

let shown = []; // the jobs of this page
let asked = 0; // an answer that comes after a later one's question is old news
let searching = null; // timers
let refreshing = null;

const detail = new Detail({ opened: (job, number) => go({ job, n: number || null }, "push"), gone });

function state() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

function address(changes) {
  const wanted = { ...state(), ...changes };
  const known = Object.entries(wanted).filter(([, value]) => value !== null && value !== "");
  return `/gallery${known.length ? "?" : ""}${new URLSearchParams(known.map(([k, v]) => [k, String(v)]))}`;
}

// Shows something else; "push" has the back button lead back, "replace" does not.
function go(changes, how) {
  history[how === "push" ? "pushState" : "replaceState"](null, "", address(changes));
  return load();
}

async function load() {
  const { q = "", mode = "", before, after, job, n } = state();
  if (document.activeElement !== $("words")) $("words").value = q;
  const mine = ++asked;
  const wanted = Object.entries({ q, mode, before, after }).filter(([, value]) => value);
  detail.show(job ?? null, Number(n) || 0);
  try {
    const answer = await call("GET", `/api/gallery?${new URLSearchParams(wanted)}`);
    if (mine !== asked) return;
    $("error").hidden = true;
    show(answer, { q, mode });
  } catch (problem) {
    if (mine !== asked) return;
    $("error").textContent = problem.message;
    $("error").hidden = false;
  }
}

function show({ jobs, has_newer, has_older, modes }, { q, mode }) {
  shown = jobs;
  showTiles(jobs.flatMap((job) => job.images.map((image, number) => ({ job, image, number }))));
  const chosen = modes.includes(mode) || !mode ? modes : [...modes, mode];
  const options = ["", ...chosen].join("\n");
  if ($("by-mode").dataset.options !== options) {
    $("by-mode").dataset.options = options;
    $("by-mode").replaceChildren(new Option("All modes", ""), ...chosen.map((name) => new Option(name, name)));
  }
  $("by-mode").value = mode;
  $("empty").hidden = jobs.length > 0;
  const nothing = q || mode ? "Nothing of yours fits that." : "No picture yet. Create draws the first one.";
  setText($("empty"), nothing);
  $("turn").hidden = !(has_newer || has_older);
  turn($("newer"), has_newer && { before: null, after: jobs[0]?.id, job: null, n: null });
  turn($("older"), has_older && { after: null, before: jobs.at(-1)?.id, job: null, n: null });
}

function turn(link, changes) {
  // Hidden rather than absent, so that the other one stays where the finger is.
  link.toggleAttribute("href", Boolean(changes));
  link.ariaDisabled = changes ? null : "true";
  if (changes) link.href = address(changes);
}

const tiles = new Map(); // by image id

function showTiles(pictures) {
  const ids = new Set(pictures.map(({ image }) => image.id));
  for (const [id, tile] of tiles) {
    if (ids.has(id)) continue;
    tile.remove();
    tiles.delete(id);
  }
  pictures.forEach((picture, index) => {
    const { id } = picture.image;
    if (!tiles.has(id)) tiles.set(id, tile(picture));
    const there = $("tiles").children[index];
    if (there !== tiles.get(id)) $("tiles").insertBefore(tiles.get(id), there ?? null);
    tiles.get(id).querySelector("a").href = address({ job: picture.job.id, n: picture.number || null });
  });
}

function tile({ job, image, number }) {
  const { prompt } = job.request;
  const alt = job.images.length > 1 ? `${prompt} (${number + 1})` : prompt;
  const picture = make("img", { src: `${image.url}/small`, alt, loading: "lazy", decoding: "async" });
  const caption = make("span", { textContent: prompt, className: "caption", ariaHidden: "true" });
  const link = make("a", { title: prompt }, picture, caption);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab
    event.preventDefault();
    go({ job: job.id, n: number || null }, "push");
  });
  return make("li", {}, link);
}

// What is told of as gone, here or in another tab.
function gone(id) {
  if (state().job === id) go({ job: null, n: null }, "replace");
  else load();
}

for (const link of [$("newer"), $("older")]) {
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    if (!link.hasAttribute("href")) return;
    history.pushState(null, "", link.href);
    await load();
    scrollTo({ top: 0 });
  });
}

function search() {
  clearTimeout(searching);
  go({ q: $("words").value.trim(), mode: $("by-mode").value, before: null, after: null }, "replace");
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
$("words").addEventListener("input", () => {
  clearTimeout(searching);
  searching = setTimeout(search, SOON);
});
$("by-mode").addEventListener("change", search);
addEventListener("popstate", load);
$("detail").addEventListener("close", () => state().job && go({ job: null, n: null }, "push"));

function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(load, SOON);
}

if ($("words").value) search(); // somebody typed before this was here

follow("/api/events", {
  jobs: load, // at once, and whenever the connection is back
  job(job) {
    detail.hear(job);
    if (job.status === "done") refreshSoon();
  },
  gone: ({ id }) => (shown.some((job) => job.id === id) || state().job === id) && gone(id),
});
