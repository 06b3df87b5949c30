// How things are: memory, how it went, what failed.

import { call } from "./api.js";
import { $, follow, isAdmin, make, setText } from "./frame.js";

const FRESH = 30_000; // milliseconds; the server draws plots no more often
const template = $("device");
const cards = new Map(); // by device

function gigabytes(number) {
  return number < 0.1 ? `${Math.round(number * 1024)} MB` : `${number.toFixed(number < 10 ? 1 : 0)} GB`;
}

const STATES = { starting: "starting", ready: "ready", restarting: "being started again", down: "down", closed: "closed" };

function card(name) {
  if (!cards.has(name)) {
    const element = template.content.firstElementChild.cloneNode(true);
    cards.set(name, element);
    $("devices").append(element);
  }
  return cards.get(name);
}

function showDevice(name, { title, state, used, total, models }) {
  const element = card(name);
  setText(element.querySelector("h3"), title);
  setText(element.querySelector(".state"), state);
  const meter = element.querySelector(".meter");
  const known = used !== null && total !== null;
  meter.hidden = !known;
  const words = known ? `${gigabytes(used)} of ${gigabytes(total)} in use` : "It is busy and tells of its memory later.";
  const share = known && total ? Math.round((100 * used) / total) : 0;
  meter.firstElementChild.style.width = `${share}%`;
  meter.classList.toggle("full", share > 90);
  meter.setAttribute("aria-valuenow", share);
  meter.setAttribute("aria-label", `Memory of ${title}`);
  meter.setAttribute("aria-valuetext", words);
  setText(element.querySelector(".memory"), words);
  const lines = models.map(({ name: model, modes, path, vram_gb }) => `${modes.join(", ") || path || model}: ${gigabytes(vram_gb)}`);
  const shape = lines.join("\n");
  if (element.dataset.shape === shape) return;
  element.dataset.shape = shape;
  element.querySelector(".models").replaceChildren(...lines.map((textContent) => make("li", { textContent })));
}

function showDevices({ devices, machine, troubles }) {
  const names = new Set(["machine", ...devices.map(({ device }) => device)]);
  for (const [name, element] of cards) {
    if (names.has(name)) continue;
    element.remove();
    cards.delete(name);
  }
  for (const { device, state, used_gb, total_gb, models } of devices)
    showDevice(device, { title: device, state: STATES[state] ?? state, used: used_gb, total: total_gb, models });
  showDevice("machine", { title: "This machine's memory", state: "", used: machine.used_gb, total: machine.total_gb, models: [] });
  $("troubles").replaceChildren(...troubles.map((textContent) => make("li", { textContent })));
}

function showFailures({ failures }) {
  setText($("no-failures"), isAdmin ? "No request has failed." : "None of your requests has failed.");
  $("no-failures").hidden = failures.length > 0;
  $("failures").replaceChildren(
    ...failures.map(({ at, mode, error, is_yours }) => {
      const when = make("time", { dateTime: at, textContent: new Date(at).toLocaleString() });
      const about = make("p", { className: "who" }, when, ` · ${mode}${is_yours ? " · yours" : ""}`);
      return make("li", { className: "row" }, make("div", { className: "words" }, make("p", { textContent: error }), about));
    }),
  );
}

const plots = new Map(); // by name
let asked = 0;

async function showPlots() {
  const hours = document.querySelector('[name="hours"]:checked').value;
  const mine = ++asked;
  let told;
  try {
    told = await call("GET", `/api/plots?hours=${hours}`);
  } catch (problem) {
    if (mine === asked) sayOfPlots(problem.message);
    return;
  }
  if (mine !== asked) return;
  $("plots-error").hidden = true;
  for (const { name, title, alt, url } of told.plots) {
    if (!plots.has(name)) plots.set(name, plot());
    const { dark, image } = plots.get(name);
    image.alt = `${title}: ${alt}`;
    const address = `${url}&at=${Math.floor(Date.now() / FRESH)}`;
    if (!image.src.endsWith(address)) {
      dark.srcset = `${address}&theme=dark`;
      image.src = address;
    }
  }
}

function plot() {
  const dark = make("source", { media: "(prefers-color-scheme: dark)" });
  const image = make("img", { decoding: "async", width: 640, height: 240 });
  image.addEventListener("error", () => sayOfPlots("The plots can't be drawn just now."));
  $("plots").append(make("figure", {}, make("picture", {}, dark, image)));
  return { dark, image };
}

function sayOfPlots(text) {
  setText($("plots-error"), text);
  $("plots-error").hidden = false;
}

$("hours").addEventListener("change", showPlots);
setInterval(() => document.visibilityState === "visible" && showPlots(), FRESH);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && showPlots());
showPlots();

follow("/api/devices/events", { devices: showDevices, failures: showFailures });
