// Legends: classes with their colours, or a ramp with three values.

import { make, swatch } from "./elements.js";
import { shapeMark } from "./points.js";

// Return the legend of a list of points; `coloured` says whether the classes' colours stand above.
export function pointLegend({ id, kind }, about, speech, depth, coloured) {
  const several = kind.byDepth && about.depths.length > 1 ? `, ${speech.depth(about.depths[depth])}` : "";
  const rows = kind
    .legend(about, speech, coloured)
    .map(([shape, colour, text]) => make("li", {}, shapeMark(shape, colour), text));
  const title = make("h3", {}, speech.say(`points_${id}`), several);
  return make("div", {}, title, make("ul", {}, rows), kind.byDepth && coloured ? make("p", { class: "note" }, speech.say("same_colours")) : null);
}

// Return the legend of a layer; `depth` is the index of the chosen depth layer.
export function legendOf(layer, about, speech, depth) {
  const unit = layer.unit ? ` (${layer.unit})` : "";
  const several = about.depths.length > 1 && !layer.whole;
  const where = several ? `, ${speech.depth(about.depths[depth])}` : "";
  const title = make("h3", {}, speech.say(`layer_${layer.id}`), where, unit);
  if (layer.classes) {
    const rows = about[layer.classes].map((one) => make("li", {}, swatch(one.colour), speech.legend(one)));
    return make("div", {}, title, make("ul", {}, rows));
  }
  const style = `background:linear-gradient(to right, ${layer.ramp.join(",")})`;
  const digits = layer.high < 1 ? 2 : 1;
  const marks = [0, layer.high / 2, layer.high].map((value) => make("span", {}, speech.number(value, digits)));
  return make("div", {}, title, make("div", { class: "ramp", style }), make("div", { class: "marks" }, marks));
}
