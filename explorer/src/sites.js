// Sample sites: boreholes, test pits and points with a class. What each one found, beside the map.

import { make, swatch, table } from "./elements.js";
import { profileOf } from "./profile.js";

const NONE = "#555555";

function classAt(site, about, depth) {
  return about.classes.find(({ code }) => code === site.layers[depth].code);
}

function titleOf(site, speech) {
  return speech.say(`site_${site.method ?? ""}`, site.name);
}

export const sites = {
  byDepth: true,

  // A circle is permafrost, a triangle none, a cross no class in this layer.
  look(site, about, depth) {
    const kind = classAt(site, about, depth);
    if (!kind) return { shape: "cross", colour: NONE };
    return { shape: kind.permafrost ? "circle" : "triangle", colour: kind.colour };
  },

  line(site, about, speech, depth) {
    const kind = classAt(site, about, depth);
    return `${titleOf(site, speech)}: ${kind ? speech.name(kind.name) : speech.say("no_class")}`;
  },

  legend(about, speech, coloured) {
    const shape = ({ permafrost }) => (permafrost ? "circle" : "triangle");
    const classes = coloured
      ? [
          ["circle", "#fff", speech.say("with_permafrost")],
          ["triangle", "#fff", speech.say("without_permafrost")],
        ]
      : about.classes.map((kind) => [shape(kind), kind.colour, speech.name(kind.name)]);
    return [...classes, ["cross", NONE, speech.say("no_class")]];
  },

  answer(site, about, speech, cell) {
    const metres = (key) => site[key] !== undefined && speech.say(key, speech.metres(site[key]));
    const facts = [site.date, metres("reached"), metres("table"), metres("base")];
    const title = make("h3", {}, titleOf(site, speech));
    return [
      title,
      make("p", { class: "note" }, facts.filter(Boolean).join(" · ")),
      make("p", {}, speech.say(`use_${site.use}`)),
      ...foundTable(site, about, speech, cell),
      profileOf(site, about, speech, cell),
    ].filter(Boolean);
  },
};

// Return what the site found in each layer, with the map's ice content in its cell.
function foundTable(site, about, speech, cell) {
  const withIce = site.layers.some(({ ice }) => ice !== undefined);
  const heads = [speech.say("depth"), speech.say("found")];
  if (withIce) heads.push(speech.say("ice"));
  const small = (text) => make("div", { class: "note" }, text);
  const rows = about.depths.map((depth, i) => {
    const { ice, share, reason } = site.layers[i];
    const kind = classAt(site, about, i);
    const kinds = kind ? [swatch(kind.colour), speech.name(kind.name)] : [speech.say("no_class")];
    if (reason) kinds.push(small(speech.say(reason)));
    if (share > 0 && share < 1) kinds.push(small(speech.say("part", speech.number(100 * share, 0))));
    if (!withIce) return [speech.depth(depth), kinds];
    const ices = [make("strong", {}, speech.number(ice, 3))];
    const map = cell?.depths[i];
    if (Number.isFinite(map?.ice)) {
      ices.push(small(speech.say("map_says", speech.number(map.ice, 3))));
      ices.push(small(`${speech.say("range")}: ${speech.number(map.p10, 3)}–${speech.number(map.p90, 3)}`));
    }
    return [speech.depth(depth), kinds, ices];
  });
  const result = table(null, heads, rows);
  return withIce ? [result, make("p", { class: "note" }, speech.say("site_ice"))] : [result];
}
