// Points on the map, in lists that are switched on and off. What a list's points look like and say
// is in a module of its own, such as sites.js; LISTS names it by the list's id.

import Feature from "ol/Feature.js";
import Point from "ol/geom/Point.js";
import VectorLayer from "ol/layer/Vector.js";
import VectorSource from "ol/source/Vector.js";
import { Circle, Fill, RegularShape, Stroke, Style } from "ol/style.js";
import { unpack } from "./bands.js";
import { drawn } from "./elements.js";
import { holes } from "./holes.js";
import { rgb } from "./paint.js";
import { sites } from "./sites.js";

// Of each kind of points:
//   byDepth: whether colours are those of the classes at the chosen depth
//   look(point, about, depth): shape and colour at a depth layer, by its index
//   line(point, about, speech, depth): what a pointer shows
//   answer(point, about, speech, cell): elements; `cell` has the map's values there, or is null
//   legend(about, speech, coloured): rows of [shape, colour, text]; `coloured` says whether
//     the legend of a layer has the classes' colours already
const LISTS = { sites, holes };

const SMALLEST = 2.7; // radius in pixels, where the whole map is seen
export const LARGEST = 7;
const ORDER = { cross: 0, triangle: 1, circle: 2, diamond: 3 }; // which lie above others

// Return the lists of points of a study, opened, with what belongs to their kind.
export async function readPoints(about) {
  const known = about.points.filter(({ id }) => id in LISTS);
  return Promise.all(
    known.map(async ({ id, packed }) => ({ id, kind: LISTS[id], points: await unpack(packed) })),
  );
}

// Return a point of lists by a text such as `sites:S0001`, as [list, point]; null if there is none.
export function findPoint(lists, text) {
  for (const list of lists) {
    const point = list.points.find(({ name }) => `${list.id}:${name}` === text);
    if (point) return [list, point];
  }
  return null;
}

// Shapes: a circle, a triangle, a cross or a diamond. They differ without colours, too.
function imageOf({ shape, colour }, radius) {
  // A dark point on a map as dark as it must be seen, too.
  const [r, g, b] = rgb(colour);
  const dark = 0.3 * r + 0.6 * g + 0.1 * b < 110;
  const edge = new Stroke({ color: dark ? "#fff" : "#333", width: dark ? 1.2 : 0.8 });
  const fill = new Fill({ color: colour });
  if (shape === "circle") return new Circle({ radius, fill, stroke: edge });
  if (shape === "triangle") return new RegularShape({ points: 3, radius: 1.25 * radius, fill, stroke: edge });
  if (shape === "diamond") return new RegularShape({ points: 4, radius: 1.6 * radius, fill, stroke: edge });
  const stroke = new Stroke({ color: colour, width: 1.5 });
  return new RegularShape({ points: 4, radius, radius2: 0, angle: Math.PI / 4, stroke });
}

// Return a picture of a shape for a legend.
export function shapeMark(shape, colour) {
  const look = { fill: colour, stroke: "#222", "stroke-width": 1 };
  const cross = { d: "M3 3 10 10M10 3 3 10", stroke: colour, "stroke-width": 1.5 };
  const shapes = {
    circle: () => drawn("circle", { ...look, cx: 6.5, cy: 6.5, r: 5 }),
    triangle: () => drawn("path", { ...look, d: "M6.5 1 12 11.5H1Z" }),
    cross: () => drawn("path", cross),
    diamond: () => drawn("path", { ...look, d: "M6.5 1 12 6.5 6.5 12 1 6.5Z" }),
  };
  return drawn("svg", { class: "shape", width: 13, height: 13, "aria-hidden": "true" }, shapes[shape]());
}

// The points of a list as a layer of OpenLayers.
export class PointLayer {
  // `extent` is that of the whole map.
  constructor(list, extent) {
    this.list = list;
    this.source = new VectorSource({
      features: list.points.map((point) => new Feature({ geometry: new Point(point.place), point })),
    });
    this.layer = new VectorLayer({ source: this.source });
    this.width = extent[2] - extent[0];
  }

  // Show points as they look at a depth layer.
  setDepth(about, depth) {
    const styles = new Map();
    this.layer.setStyle((feature, resolution) => {
      const look = this.list.kind.look(feature.get("point"), about, depth);
      // They grow slower than the map does.
      const closer = Math.log2(Math.max(1, this.width / (600 * resolution)));
      const radius = Math.min(LARGEST, SMALLEST + closer);
      const key = `${look.shape} ${look.colour} ${radius}`;
      if (!styles.has(key)) {
        styles.set(key, new Style({ image: imageOf(look, radius), zIndex: ORDER[look.shape] }));
      }
      return styles.get(key);
    });
  }

  // Return the point that is nearest to a place, with its distance; null if none is shown.
  nearest(place) {
    const feature = this.layer.getVisible() && this.source.getClosestFeatureToCoordinate(place);
    if (!feature) return null;
    const [x, y] = feature.getGeometry().getCoordinates();
    return { point: feature.get("point"), distance: Math.hypot(x - place[0], y - place[1]) };
  }
}
