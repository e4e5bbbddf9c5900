// Forms of the page: a place by its coordinates, a point by its name, and tools for an area.

import { make } from "./elements.js";

// Return the form of a place; `asked` is called with [longitude, latitude].
export function placeForm(speech, asked) {
  const field = (name, most) =>
    make("input", { type: "number", name, required: true, min: -most, max: most, step: "any" });
  const onsubmit = (event) => {
    event.preventDefault();
    const { longitude, latitude } = event.target.elements;
    asked([Number(longitude.value), Number(latitude.value)]);
  };
  return make(
    "form",
    { onsubmit },
    make("label", {}, speech.say("longitude"), field("longitude", 180)),
    make("label", {}, speech.say("latitude"), field("latitude", 90)),
    make("button", {}, speech.say("go")),
  );
}

// Return a choice of a list's points by their names, which needs no mouse; `chosen` is called with
// a point, [list, point].
export function pointChoice(list, speech, chosen) {
  const onchange = ({ target }) => {
    const point = list.points.find(({ name }) => name === target.value);
    if (point) chosen([list, point]);
  };
  const options = list.points.map(({ name }) => make("option", { value: name }, name));
  const none = make("option", { value: "" }, "–");
  const select = make("select", { "data-points": list.id, onchange }, none, options);
  return make("label", { class: "row" }, speech.say(`choose_${list.id}`), select);
}

// Return the tools for an area; `calls` are functions by the tools' names.
export function areaTools(speech, calls) {
  const tools = Object.entries(calls).map(([name, onclick]) =>
    make("button", { type: "button", onclick, "data-tool": name }, speech.say(name)),
  );
  return make("div", { class: "tools" }, tools);
}
