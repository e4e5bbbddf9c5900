// The page: what `helpers.explorer.page` wrote into it is shown, and the address follows.

import "ol/ol.css";
import "./explorer.css";
import { explore } from "./explorer.js";
import { readLink, writeLink } from "./link.js";

export { explore };

// Return the text of an element, once the browser has read all of it: bands are at the page's end.
async function textOf(id) {
  for (;;) {
    const element = document.getElementById(id);
    if (element && (element.nextElementSibling || document.readyState !== "loading")) {
      return element.textContent;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const root = document.getElementById("explorer");
if (root && !window.DecompressionStream) {
  root.append("This page needs a browser of 2023 or later. 本页面需要 2023 年以后的浏览器。");
} else if (root) {
  explore(root, {
    about: JSON.parse(await textOf("about")),
    textOf: (name) => textOf(`band-${name}`),
    state: readLink(location.hash),
    onState: writeLink,
  });
}
