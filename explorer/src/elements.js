// Elements of the page, made from a name, attributes and children; texts are never read as HTML.

export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// Return an element of a drawing.
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Return a table: a caption, heads of columns, and rows of which the first cell is a head.
export function table(caption, heads, rows) {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), rest.map((cell) => make("td", {}, cell))),
  );
  return make(
    "table",
    {},
    caption ? make("caption", {}, caption) : null,
    make("thead", {}, head),
    make("tbody", {}, body),
  );
}

export function swatch(colour) {
  return make("span", { class: "swatch", style: `background:${colour}`, "aria-hidden": "true" });
}

// Return a bar of a share, 0-1.
export function bar(share, colour) {
  const fill = make("span", { style: `width:${100 * share}%;background:${colour}` });
  return make("span", { class: "bar", "aria-hidden": "true" }, fill);
}

// Return a picture of a range on an axis that ends at `most`, with a mark at the expected value.
export function range(low, high, mark, most) {
  const place = (value) => `${(100 * Math.min(value, most)) / most}%`;
  const width = `${(100 * (Math.min(high, most) - Math.min(low, most))) / most}%`;
  return make(
    "span",
    { class: "range", "aria-hidden": "true" },
    make("span", { class: "between", style: `left:${place(low)};width:${width}` }),
    make("span", { class: "mark", style: `left:${place(mark)}` }),
  );
}

// Return a radio button of a group; `chosen` is called when it is.
export function radio(group, value, text, checked, chosen) {
  const attributes = { type: "radio", name: `explorer-${group}`, value, checked, onchange: chosen };
  return make("label", { class: "choice" }, make("input", attributes), text);
}

// Return a box to tick; `ticked` is called with whether it is.
export function checkbox(name, text, checked, ticked) {
  const onchange = ({ target }) => ticked(target.checked);
  const input = make("input", { type: "checkbox", name: `explorer-${name}`, checked, onchange });
  return make("label", { class: "choice" }, input, text);
}

// Return a slider from 0 to 1; `moved` is called with its number.
export function slider(text, value, moved) {
  const oninput = ({ target }) => moved(Number(target.value));
  const input = make("input", { type: "range", min: 0, max: 1, step: 0.01, value, oninput });
  return make("label", { class: "row" }, text, input);
}
