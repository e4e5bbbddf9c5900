// The map: a layer in the study's own projection, one to compare it with, outlines, drawing.

import Feature from "ol/Feature.js";
import OlMap from "ol/Map.js";
import View from "ol/View.js";
import ScaleLine from "ol/control/ScaleLine.js";
import Zoom from "ol/control/Zoom.js";
import MultiLineString from "ol/geom/MultiLineString.js";
import Point from "ol/geom/Point.js";
import Polygon, { fromExtent } from "ol/geom/Polygon.js";
import Draw, { createBox } from "ol/interaction/Draw.js";
import ImageLayer from "ol/layer/Image.js";
import VectorLayer from "ol/layer/Vector.js";
import { get as getProjection, transform } from "ol/proj.js";
import { register } from "ol/proj/proj4.js";
import ImageCanvas from "ol/source/ImageCanvas.js";
import VectorSource from "ol/source/Vector.js";
import { Circle, Fill, Stroke, Style, Text } from "ol/style.js";
import proj4 from "proj4";

const OWN = "STUDY";

// Return a source that shows a canvas with a pixel for each cell.
function source(canvas, extent) {
  const canvasFunction = (wanted, resolution, ratio, size) => {
    const target = document.createElement("canvas");
    [target.width, target.height] = size;
    const scale = size[0] / (wanted[2] - wanted[0]);
    const context = target.getContext("2d");
    context.imageSmoothingEnabled = (scale * (extent[2] - extent[0])) / canvas.width < 1;
    const place = [(extent[0] - wanted[0]) * scale, (wanted[3] - extent[3]) * scale];
    const drawn = [(extent[2] - extent[0]) * scale, (extent[3] - extent[1]) * scale];
    context.drawImage(canvas, ...place, ...drawn);
    return target;
  };
  return new ImageCanvas({ canvasFunction, projection: OWN, ratio: 1 });
}

// How far from a point a click, or a finger, is meant for it, in pixels.
const NEAR_CLICK = 10;

const CELL = new Style({
  image: new Circle({ radius: 7, stroke: new Stroke({ color: "#b2182b", width: 3 }) }),
});
const AREA = new Style({
  stroke: new Stroke({ color: "#b2182b", width: 2.5 }),
  fill: new Fill({ color: "rgba(178, 24, 43, 0.08)" }),
});

export class MapView {
  // `calls` are functions: `pick` of a place with the point there, if any, as [list, point]; `hover`
  // of a place; `moved`; `drawn` of rings.
  constructor(target, about, extent, calls) {
    this.about = about;
    this.extent = extent;
    proj4.defs(OWN, about.projection);
    register(proj4);
    getProjection(OWN).setExtent(extent);
    this.main = new ImageLayer();
    this.other = new ImageLayer({ visible: false });
    this.divider = 0.5;
    this.#clip();
    this.outlines = new VectorLayer({ source: new VectorSource(), declutter: true });
    this.marks = new VectorSource();
    this.areas = new VectorSource();
    const maxResolution = (extent[2] - extent[0]) / 100;
    const minResolution = about.grid.width / 100;
    this.view = new View({ projection: OWN, minResolution, maxResolution });
    this.map = new OlMap({
      target,
      controls: [new ScaleLine({ minWidth: 80 })],
      layers: [
        this.main,
        this.other,
        this.outlines,
        new VectorLayer({ source: this.areas, style: AREA }),
        new VectorLayer({ source: this.marks, style: CELL }),
      ],
      view: this.view,
    });
    this.points = [];
    const pick = (place) => calls.pick(place, this.pointAt(place, NEAR_CLICK));
    this.map.on("singleclick", ({ coordinate }) => this.drawing || pick(coordinate));
    this.map.on("pointermove", ({ coordinate, pixel, dragging }) => calls.hover(dragging ? null : coordinate, pixel));
    this.map.on("moveend", calls.moved);
    this.drawn = calls.drawn;
    target.addEventListener("pointerleave", () => calls.hover(null));
    target.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target === target) pick(this.view.getCenter());
      if (event.key === "Escape") this.stopDrawing();
    });
  }

  // Buttons of OpenLayers in the page's language.
  setLanguage(speech) {
    this.map.removeControl(this.zoom);
    const tips = { zoomInTipLabel: speech.say("zoom_in"), zoomOutTipLabel: speech.say("zoom_out") };
    this.zoom = new Zoom(tips);
    this.map.addControl(this.zoom);
    const several = this.about.regions.length > 1;
    const features = this.about.regions.map(({ name, rings }) => {
      // The largest ring is the first one; there the name stands.
      const place = new Polygon([rings[0]]).getInteriorPoint();
      const text = several ? speech.name(name) : "";
      return new Feature({ geometry: new MultiLineString(rings), place, text });
    });
    const line = new Style({ stroke: new Stroke({ color: "#222", width: 1 }) });
    const halo = new Stroke({ color: "#fff", width: 3 });
    const look = { font: "13px sans-serif", fill: new Fill({ color: "#111" }), stroke: halo };
    this.outlines.setStyle((feature) => [
      line,
      new Style({ geometry: "place", text: new Text({ ...look, text: feature.get("text") }) }),
    ]);
    this.outlines.getSource().clear();
    this.outlines.getSource().addFeatures(features);
  }

  // Show the whole map.
  fit() {
    this.map.updateSize();
    this.view.fit(this.extent, { padding: [10, 10, 10, 10] });
  }

  show(canvas, opacity) {
    this.main.setSource(source(canvas, this.extent));
    this.main.setOpacity(opacity);
  }

  compare(canvas, opacity) {
    this.other.setVisible(Boolean(canvas));
    if (canvas) this.other.setSource(source(canvas, this.extent));
    this.other.setOpacity(opacity);
    this.map.render();
  }

  setOpacity(opacity) {
    this.main.setOpacity(opacity);
    this.other.setOpacity(opacity);
  }

  setDivider(share) {
    this.divider = share;
    this.map.render();
  }

  // Left of the divider is the layer, right of it the one to compare with.
  #clip() {
    const clip = (layer, side) => {
      layer.on("prerender", ({ context }) => {
        const width = context.canvas.width;
        const middle = this.other.getVisible() ? width * this.divider : width;
        context.save();
        context.beginPath();
        context.setTransform(1, 0, 0, 1, 0, 0);
        const [left, right] = side === "left" ? [0, middle] : [middle, width];
        context.rect(left, 0, right - left, context.canvas.height);
        context.clip();
      });
      layer.on("postrender", ({ context }) => context.restore());
    };
    clip(this.main, "left");
    clip(this.other, "right");
  }

  // Show the points of a layer, below what is asked for.
  addPoints(pointLayer) {
    this.points.push(pointLayer);
    this.map.getLayers().insertAt(this.map.getLayers().getLength() - 2, pointLayer.layer);
  }

  // Return the point that is shown nearest to a place, as [list, point]; null beyond some pixels.
  pointAt(place, pixels) {
    const near = this.points.map((one) => ({ list: one.list, ...one.nearest(place) }));
    const [first] = near.filter(({ point }) => point).sort((a, b) => a.distance - b.distance);
    if (!first || first.distance > pixels * this.view.getResolution()) return null;
    return [first.list, first.point];
  }

  mark(place) {
    this.marks.clear();
    if (place) this.marks.addFeature(new Feature(new Point(place)));
  }

  setArea(rings) {
    this.areas.clear();
    if (rings) this.areas.addFeature(new Feature(new Polygon(rings)));
  }

  draw(rectangle) {
    this.stopDrawing();
    const how = rectangle ? { type: "Circle", geometryFunction: createBox() } : { type: "Polygon" };
    this.drawing = new Draw({ ...how, style: [AREA, CELL] });
    this.drawing.on("drawstart", () => this.areas.clear());
    this.drawing.on("drawend", ({ feature }) => {
      // The click that ends the drawing must not ask a cell, too.
      setTimeout(() => this.stopDrawing(), 300);
      this.drawn(feature.getGeometry().getCoordinates().map((ring) => ring.slice(0, -1)));
    });
    this.map.addInteraction(this.drawing);
  }

  stopDrawing() {
    if (this.drawing) this.map.removeInteraction(this.drawing);
    this.drawing = null;
  }

  get inView() {
    const extent = this.view.calculateExtent(this.map.getSize());
    return fromExtent(extent).getCoordinates().map((ring) => ring.slice(0, -1));
  }

  toDegrees(place) {
    return transform(place, OWN, "EPSG:4326");
  }

  fromDegrees(place) {
    return transform(place, "EPSG:4326", OWN);
  }
}
