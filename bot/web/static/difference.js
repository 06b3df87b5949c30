// The difference between two texts, line by line; signs say what colours do.

import { make } from "./frame.js";

const SIGNS = { same: " ", added: "+", removed: "−", gap: "…" };
const WORDS = { added: "added: ", removed: "removed: " };

export function showDifference(box, lines) {
  box.replaceChildren(
    ...lines.map(({ kind, text, line }) => {
      const number = make("span", { className: "number", textContent: line ?? "", ariaHidden: "true" });
      const sign = make("span", { className: "sign", textContent: SIGNS[kind], ariaHidden: "true" });
      const said = make("span", { className: "unseen", textContent: WORDS[kind] ?? "" });
      return make("div", { className: kind }, number, sign, said, make("code", { textContent: text }));
    }),
  );
}
