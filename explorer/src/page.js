// The page: what `helpers.explorer.page` wrote into it is shown, and the address follows.
// In a notebook the widget of `helpers.explorer.widget` takes the page's place.

import "ol/ol.css";
import "./explorer.css";
import { explore } from "./explorer.js";
import { readLink, writeLink } from "./link.js";

// What anywidget calls for each view of the widget: Python hands over bands by name when they are
// needed, and learns which cell was asked.
export default {
  render({ model, el }) {
    const waiting = new Map();
    model.on("msg:custom", ({ band, text }) => {
      waiting.get(band)?.resolve(text);
    });
    const textOf = (name) => {
      if (!waiting.has(name)) {
        waiting.set(name, Promise.withResolvers());
        model.send({ band: name });
      }
      return waiting.get(name).promise;
    };
    const onCell = (place) => {
      model.set("place", place);
      model.save_changes();
    };
    const view = document.createElement("div");
    view.classList.add("explorer", "in-notebook");
    el.append(view);
    // A notebook lays out an output after it is made; before, the map would fit into no room.
    const observer = new ResizeObserver(() => {
      if (!view.clientWidth) return;
      observer.disconnect();
      explore(view, { about: model.get("about"), textOf, onCell });
    });
    observer.observe(view);
  },
};

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
