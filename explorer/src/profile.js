// A profile: the ice of a site's cores against depth, beside what the map has in its cell.

import { drawn, make } from "./elements.js";

const WIDTH = 340;
const HEIGHT = 250;
const LEFT = 34;
const TOP = 34;
const RIGHT = 12;
const BOTTOM = 8;

const CORE = { fill: "#9ecae1", stroke: "#2c5f8a", "stroke-width": 0.7 };
const UNFROZEN = { fill: "#d8c3a0", stroke: "#7a6240", "stroke-width": 0.7 };
const SITE = { stroke: "#111", "stroke-width": 2.5 };
const MAP = { stroke: "#b2182b", "stroke-width": 2.5, "stroke-dasharray": "5 2" };
const RANGE = { fill: "#fbdfd0", stroke: "#b2182b" };
const ENDS = { fill: "none", stroke: "#b2182b" }; // of the range, over the cores
const UNFROZEN_WIDTH = 7; // pixels: it has no ice whose width it could show

// Return the layers of a site that have depths, with their ice at the site and on the map.
function layersOf(site, about, cell) {
  const layers = about.depths.map(({ top, thickness }, i) => {
    const map = cell?.depths[i] ?? {};
    return { top, bottom: top + thickness, found: site.layers[i].ice, ...map };
  });
  return layers.filter((_, i) => about.depths[i].top !== null);
}

// Return a drawing with its key; null where a site has no ice contents.
export function profileOf(site, about, speech, cell) {
  const layers = layersOf(site, about, cell);
  const found = layers.filter((one) => one.found !== undefined);
  if (!layers.length || !(site.cores || found.length)) return null;
  const cores = site.cores ?? [];
  const lowest = Math.max(...layers.map(({ bottom }) => bottom));
  // Of a deep hole, what the map has nothing of may be cut.
  const deepest = Math.min(Math.max(site.reached ?? 0, lowest), 1.5 * lowest);
  const contents = [...cores.map(([, , ice]) => ice), ...layers.flatMap(({ p90, ice, found }) => [p90, ice, found])];
  const most = Math.ceil(5 * Math.max(0.2, ...contents.filter(Number.isFinite))) / 5;
  const across = (ice) => LEFT + (ice / most) * (WIDTH - LEFT - RIGHT);
  const down = (depth) => TOP + (Math.min(depth, deepest) / deepest) * (HEIGHT - TOP - BOTTOM);
  const box = (look, from, to, top, bottom) =>
    drawn("rect", { ...look, x: from, width: to - from, y: down(top), height: down(bottom) - down(top) });
  const upright = (look, ice, { top, bottom }) =>
    drawn("line", { ...look, x1: across(ice), x2: across(ice), y1: down(top), y2: down(bottom) });
  const range = (look, { p10, p90, top, bottom }) => box(look, across(p10), across(p90), top, bottom);
  const pieces = cores
    .filter(([top]) => top < deepest)
    .map(([top, bottom, ice]) =>
      ice === null ? box(UNFROZEN, LEFT, LEFT + UNFROZEN_WIDTH, top, bottom) : box(CORE, LEFT, across(ice), top, bottom),
    );
  const mapped = layers.filter(({ ice }) => Number.isFinite(ice));
  const parts = [
    ...axes({ most, deepest, across, down, speech }),
    ...mapped.map((one) => range(RANGE, one)),
    ...pieces,
    ...mapped.map((one) => range(ENDS, one)),
    ...mapped.map((one) => upright(MAP, one.ice, one)),
    ...found.map((one) => upright(SITE, one.found, one)),
    ...horizons(site, deepest, down, speech),
  ];
  const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": speech.say("profile", site.name) };
  const key = [
    cores.some(([, , ice]) => ice !== null) ? [box, CORE, "cores"] : null,
    cores.some(([, , ice]) => ice === null) ? [box, UNFROZEN, "unfrozen"] : null,
    found.length ? [null, SITE, "layer_mean"] : null,
    ...(mapped.length ? [[null, MAP, "map_expected"], [box, RANGE, "map_range"]] : []),
  ].filter(Boolean);
  const rows = key.map(([area, look, text]) => make("li", {}, keyOf(area, look), speech.say(text)));
  return make("div", { class: "profile" }, drawn("svg", attributes, parts), make("ul", {}, rows));
}

function keyOf(area, look) {
  const shape = area
    ? drawn("rect", { ...look, x: 1, y: 2, width: 12, height: 9 })
    : drawn("line", { ...look, x1: 7, x2: 7, y1: 0, y2: 13 });
  return drawn("svg", { width: 14, height: 13, "aria-hidden": "true" }, shape);
}

// Return a step of ticks, so that there are some five of them.
function stepOf(most) {
  return [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((step) => most / step <= 6) ?? most;
}

function axes({ most, deepest, across, down, speech }) {
  const parts = [];
  const line = (x1, y1, x2, y2, stroke) => parts.push(drawn("line", { x1, y1, x2, y2, stroke }));
  const text = (x, y, anchor, said) => parts.push(drawn("text", { x, y, "text-anchor": anchor }, said));
  const [right, bottom] = [across(most), down(deepest)];
  const iceStep = stepOf(most);
  for (let n = 0; n * iceStep <= most + 1e-9; n++) {
    const x = across(n * iceStep);
    line(x, TOP, x, bottom, "#ddd");
    text(x, TOP - 5, "middle", speech.number(n * iceStep, 1));
  }
  const step = stepOf(deepest);
  for (let n = 0; n * step <= deepest + 1e-9; n++) {
    const y = down(n * step);
    line(LEFT, y, right, y, "#eee");
    text(LEFT - 5, y + 4, "end", speech.metres(n * step));
  }
  line(LEFT, TOP, right, TOP, "#555");
  line(LEFT, TOP, LEFT, bottom, "#555");
  text(LEFT - 5, TOP - 19, "end", "m");
  text((LEFT + right) / 2, TOP - 19, "middle", `${speech.say("ice")} (m³ m⁻³)`);
  return parts;
}

// Return lines at the permafrost table and base, and at the end of the hole.
function horizons(site, deepest, down, speech) {
  const looks = {
    table: { stroke: "#08519c", "stroke-dasharray": "2 3", "stroke-width": 1.5 },
    base: { stroke: "#08519c", "stroke-dasharray": "2 3", "stroke-width": 1.5 },
    reached: { stroke: "#555", "stroke-width": 2 },
  };
  const shown = Object.keys(looks).filter((key) => site[key] <= deepest);
  return shown.flatMap((key) => {
    const y = down(site[key]);
    const line = drawn("line", { ...looks[key], x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y });
    const said = speech.say(`profile_${key}`);
    return [line, drawn("text", { class: "halo", x: WIDTH - RIGHT, y: y - 4, "text-anchor": "end" }, said)];
  });
}
