// What the page answers: on a cell, and on an area.

import { bar, make, range, swatch, table } from "./elements.js";

// Return all values of a cell by the names of bands, those by depth without the depth.
export async function readCell(about, bands, cell) {
  const read = async (name) => bands.value(name, cell);
  const codes = about.classes.map(({ code }) => code);
  const kinds = ["type", "reference", "permafrost", "ice", "held", "p10", "p50", "p90"];
  kinds.push("dissimilarity", "true_type", "true_ice", ...codes.map((code) => `chance_${code}`));
  const depths = about.depths.map(async ({ name }) => {
    const values = await Promise.all(kinds.map((kind) => read(`${kind}_${name}`)));
    return Object.fromEntries(kinds.map((kind, i) => [kind, values[i]]));
  });
  const [region, trust, ...byDepth] = await Promise.all([read("region"), read("trust"), ...depths]);
  const parts = byDepth.map((one, i) => {
    const held = bands.has(`held_${about.depths[i].name}`) ? one.held : one.ice;
    return held * about.depths[i].thickness;
  });
  const storage = parts.reduce((sum, part) => sum + part, 0);
  return { region, trust, storage, depths: byDepth };
}

// Return the lines that a pointer shows: place, type, and the value of the layer if it is another.
export function hoverLines(about, speech, layer, { region, code, value, where }) {
  const place = about.regions.length > 1 && about.regions[region - 1];
  const kind = about.classes.find((one) => one.code === code);
  const lines = [place ? `${speech.name(place.name)} · ${where}` : where];
  if (kind) lines.push(speech.name(kind.name));
  if (Number.isFinite(value) && layer.id !== "type") {
    const entry = layer.classes && about[layer.classes].find((one) => one.code === value);
    const text = entry ? speech.legend(entry) : `${speech.number(value, 2)} ${layer.unit}`;
    lines.push(`${speech.say(`layer_${layer.id}`)}: ${text}`);
  }
  return lines;
}

// Return the answer on a cell as elements; `depth` is the index of the chosen depth layer.
export function cellAnswer(about, speech, cell, where, depth) {
  const chosen = cell.depths[depth];
  if (Number.isNaN(chosen.type)) {
    return [make("p", {}, where), make("p", {}, speech.say("outside"))];
  }
  const region = about.regions[cell.region - 1];
  const place = about.regions.length > 1 && region ? `${speech.name(region.name)} · ` : "";
  return [
    make("p", { class: "where" }, place, where),
    trustOf(about, speech, cell),
    depthTable(about, speech, cell, depth),
    Number.isFinite(cell.storage)
      ? make("p", {}, `${speech.say("storage")}: `, make("strong", {}, speech.say("storage_is", speech.number(cell.storage, 2))))
      : null,
    chances(about, speech, chosen, about.depths[depth]),
  ].filter(Boolean);
}

// Return the level of trust, which is the lowest of all depth layers, and the dissimilarity index of
// the layer that is least like its samples, which tells why.
function trustOf(about, speech, cell) {
  const level = about.trust.find(({ code }) => code === cell.trust);
  if (!level) return null;
  const several = about.depths.length > 1;
  const { name, meaning } = speech.trust(level);
  const limits = about.depths.map((depth) => about.thresholds[depth.name]);
  const ratios = cell.depths.map(({ dissimilarity }, i) => dissimilarity / limits[i]);
  const least = ratios.indexOf(Math.max(...ratios));
  const said = several ? "index_at" : "index";
  const why =
    least < 0
      ? ""
      : ` ${speech.say(
          said,
          speech.number(cell.depths[least].dissimilarity, 3),
          speech.number(limits[least], 3),
          speech.depth(about.depths[least]),
        )}`;
  const title = `${speech.say(several ? "trust_lowest" : "trust")}: `;
  return make("p", {}, swatch(level.colour), title, make("strong", {}, name), `. ${meaning}${why}`);
}

function className(about, speech, code) {
  const kind = about.classes.find((one) => one.code === code);
  return kind ? [swatch(kind.colour), speech.name(kind.name)] : ["–"];
}

function depthTable(about, speech, cell, depth) {
  const withIce = cell.depths.some(({ ice }) => Number.isFinite(ice));
  const most = Math.max(0.1, ...cell.depths.map(({ p90, ice }) => Math.max(p90 || 0, ice || 0)));
  const heads = [speech.say("depth"), speech.say("type")];
  if (withIce) heads.push(speech.say("ice"));
  const small = (...content) => make("div", { class: "note" }, ...content);
  const rows = cell.depths.map((one, i) => {
    const chance = `${speech.say("permafrost")}: ${speech.percent(one.permafrost)}`;
    const kinds = [...className(about, speech, one.type), small(chance)];
    if (one.reference !== one.type) {
      kinds.push(small(`${speech.say("reference")}: `, ...className(about, speech, one.reference)));
    }
    if (Number.isFinite(one.true_type)) {
      kinds.push(small(`${speech.say("truth")}: `, ...className(about, speech, one.true_type)));
    }
    if (!withIce) return [speech.depth(about.depths[i]), kinds];
    const ends = `${speech.say("range")}: ${speech.number(one.p10, 3)}–${speech.number(one.p90, 3)}`;
    const ices = [make("strong", {}, speech.number(one.ice, 3)), range(one.p10, one.p90, one.ice, most), small(ends)];
    if (Number.isFinite(one.true_ice)) {
      ices.push(small(`${speech.say("truth")}: ${speech.number(one.true_ice, 3)}`));
    }
    return [speech.depth(about.depths[i]), kinds, ices];
  });
  const result = table(null, heads, rows);
  if (cell.depths.length > 1) result.tBodies[0].rows[depth].className = "chosen";
  return make("div", {}, result, withIce ? make("p", { class: "note" }, speech.say("expectation")) : null);
}

function chances(about, speech, values, depth) {
  const rows = about.classes.map((kind) => {
    const share = values[`chance_${kind.code}`];
    return [speech.name(kind.name), speech.percent(share), bar(share, kind.colour)];
  });
  const several = about.depths.length > 1 ? `, ${speech.depth(depth)}` : "";
  const result = table(`${speech.say("probabilities")}${several}`, [speech.say("type"), "%", speech.say("share")], rows);
  result.tHead.classList.add("hidden");
  result.className = "chances";
  return result;
}

// Return the answer on the totals of an area.
export function areaAnswer(about, speech, totals, depth) {
  if (!totals.cells) return [make("p", {}, speech.say("too_small"))];
  const square = (value) => `${speech.total(value)} km²`;
  const cubic = (value) => `${speech.total(value)} km³`;
  const parts = [
    make("p", {}, `${speech.say("of_area")}: `, make("strong", {}, square(totals.area)), ` · ${speech.say("of_map")}: ${square(totals.mapped)}`),
  ];
  if (totals.ice.length) {
    const rows = totals.ice.map((ice, i) => [speech.depth(about.depths[i]), cubic(ice)]);
    const sum = totals.ice.reduce((a, b) => a + b, 0);
    rows.push([speech.say("all_layers"), make("strong", { "data-total": sum }, cubic(sum))]);
    parts.push(table(null, [speech.say("depth"), speech.say("volume")], rows));
    parts.push(make("p", { class: "note" }, speech.say("no_interval")));
  }
  const rows = about.classes
    .map((kind, i) => [[swatch(kind.colour), speech.name(kind.name)], square(totals.byClass[i])])
    .filter((_, i) => totals.byClass[i] > 0);
  const several = about.depths.length > 1 ? `, ${speech.depth(about.depths[depth])}` : "";
  parts.push(table(`${speech.say("by_class")}${several}`, [speech.say("type"), speech.say("of_area")], rows));
  return parts;
}
