// The view of a map: layers on the left, the map, and answers on the right.
// A page and a notebook use it alike: they hand over what there is and where bands come from.

import { areaAnswer, cellAnswer, hoverLines, readCell } from "./answers.js";
import { Bands } from "./bands.js";
import { checkbox, make, radio, slider } from "./elements.js";
import { areaTools, placeForm, pointChoice } from "./forms.js";
import { legendOf, pointLegend } from "./legend.js";
import { corners, numbers } from "./link.js";
import { MapView } from "./map.js";
import { paint, valueOf } from "./paint.js";
import { LARGEST, PointLayer, findPoint, readPoints } from "./points.js";
import { totalsOf } from "./totals.js";
import { Speech } from "./words.js";

// Build the view in an element.
//   about: what a study has, see helpers/explorer/layers.py
//   textOf: gives the text of a band by its name, or a promise of it
//   state: texts by name, as in an address; onState is called with them when they change
//   onCell: is called with the place of a cell that was asked
export function explore(root, { about, textOf, state = {}, onState = () => {}, onCell = () => {} }) {
  return new Explorer(root, { about, textOf, state, onState, onCell }).start();
}

class Explorer {
  constructor(root, { about, textOf, state, onState, onCell }) {
    Object.assign(this, { root, about, onState, onCell });
    this.bands = new Bands(about, textOf);
    this.speech = new Speech(state.lang ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
    const layer = about.layers.find(({ id }) => id === state.layer);
    this.layer = layer ?? about.layers[0];
    this.other = about.layers.find(({ id }) => id === state.compare) ?? null;
    this.depth = Math.max(0, about.depths.findIndex(({ name }) => name === state.depth));
    this.opacity = 1;
    this.divider = 0.5;
    this.place = null;
    this.point = null; // [list, point]
    this.hidden = new Set((state.hide ?? "").split(",").filter(Boolean)); // ids of lists of points
    this.rings = null;
    this.first = state;
    this.pictures = 0;
    // As many digits as tell one cell from the next, and no more.
    const metresPerDegree = 111_320;
    this.digits = Math.max(1, Math.ceil(Math.log10(metresPerDegree / about.grid.width)));
  }

  async start() {
    this.root.classList.add("explorer");
    this.lists = await readPoints(this.about);
    this.#build();
    this.map = new MapView(this.parts.map, this.about, this.bands.extent, {
      pick: (place, point) => this.ask(place, point),
      hover: (place, pixel) => this.#hover(place, pixel),
      moved: () => this.#link(),
      drawn: (rings) => this.total(rings),
    });
    for (const list of this.lists) this.map.addPoints(new PointLayer(list, this.bands.extent));
    this.#speak();
    this.#points();
    this.map.fit();
    const { view, cell, area, point } = this.first;
    const [longitude, latitude, zoom] = numbers(view, 3) ?? [];
    if (zoom !== undefined) {
      this.map.view.setCenter(this.map.fromDegrees([longitude, latitude]));
      this.map.view.setZoom(zoom);
    }
    await this.#paint();
    const asked = findPoint(this.lists, point);
    if (asked) await this.ask(asked[1].place, asked);
    else if (numbers(cell, 2)) await this.ask(this.map.fromDegrees(numbers(cell, 2)));
    if (corners(area)) await this.total([corners(area)]);
    this.root.dataset.ready = "yes";
    this.#link();
    return this;
  }

  // The elements that stay; their texts follow the language.
  #build() {
    this.parts = {
      header: make("header", {}),
      layers: make("section", { class: "layers" }),
      map: make("div", { class: "map", tabindex: "0", role: "application" }),
      tip: make("div", { class: "tip", hidden: true, "aria-hidden": "true" }),
      line: make("div", { class: "line", hidden: true }),
      label: this.about.label ? make("div", { class: "label" }) : null,
      here: make("section", { class: "here" }),
      answer: make("div", { "aria-live": "polite" }),
      area: make("section", { class: "area" }),
      sum: make("div", { "aria-live": "polite" }),
      foot: make("footer", {}),
    };
    const { header, layers, map, tip, line, label, here, area, foot } = this.parts;
    const stage = make("div", { class: "stage" }, map, line, label, tip);
    const main = make("main", {}, layers, stage, make("div", { class: "side" }, here, area, foot));
    this.root.replaceChildren(header, main);
  }

  #speak() {
    const { speech, about } = this;
    const { header, map, label, here, answer, area, sum, foot } = this.parts;
    if (this.root.id === "explorer") document.documentElement.lang = speech.language;
    const other = speech.language === "en" ? "zh" : "en";
    const badge = about.label ? make("strong", { class: "badge" }, speech.say(about.label)) : null;
    header.replaceChildren(
      make("h1", {}, `${speech.say("ask")}: ${about.title}`),
      ...(badge ? [badge] : []),
      make("button", { type: "button", lang: other, onclick: () => this.setLanguage(other) }, speech.say("other_language")),
    );
    map.setAttribute("aria-label", speech.say("map"));
    if (label) label.textContent = speech.say(about.label);
    here.replaceChildren(make("h2", {}, speech.say("here")), this.#form(), ...this.#choices(), answer);
    if (!answer.childNodes.length || !this.place) answer.textContent = speech.say("hint");
    area.replaceChildren(make("h2", {}, speech.say("area")), this.#tools(), sum);
    foot.replaceChildren(...this.#foot());
    this.map.setLanguage(speech);
    this.#controls();
  }

  #foot() {
    const { speech, about } = this;
    const rounded = about.total ? "about_ice" : "about";
    const parts = [make("p", {}, speech.say(rounded)), make("p", {}, speech.say("libraries"))];
    if (about.total) {
      const { km3, lower, upper, probability } = about.total;
      const ends = [km3, lower, upper].map((value) => speech.number(value, 0));
      const key = lower === null ? "whole_alone" : "whole";
      parts.unshift(make("p", {}, speech.say(key, ...ends, `${100 * probability} %`)));
    }
    return parts;
  }

  setLanguage(language) {
    this.speech = new Speech(language);
    this.#speak();
    this.#again();
    this.#link();
  }

  // Answer once more what was asked, in another language or at another depth.
  #again() {
    if (this.place) this.ask(this.place, this.point);
    if (this.rings) this.total(this.rings);
  }

  // Layers, depth, opacity and legend.
  #controls() {
    const { speech, about } = this;
    const several = about.depths.length > 1;
    const radios = about.layers.map((layer) =>
      radio("layer", layer.id, speech.say(`layer_${layer.id}`), layer === this.layer, () => {
        this.layer = layer;
        this.#show();
      }),
    );
    const depths = about.depths.map((depth, index) =>
      radio("depth", depth.name, speech.depth(depth), index === this.depth, () => {
        this.depth = index;
        this.#show();
      }),
    );
    const boxes = this.lists.map(({ id }) =>
      checkbox(id, speech.say(`points_${id}`), !this.hidden.has(id), (shown) => {
        if (shown) this.hidden.delete(id);
        else this.hidden.add(id);
        this.#points();
        this.#legend();
        this.#link();
      }),
    );
    const options = about.layers.map((layer) =>
      make("option", { value: layer.id, selected: layer === this.other }, speech.say(`layer_${layer.id}`)),
    );
    const choose = ({ target }) => {
      this.other = about.layers.find(({ id }) => id === target.value) ?? null;
      this.#show();
    };
    const empty = make("option", { value: "" }, speech.say("nothing"));
    const fieldset = (key, content) => make("fieldset", {}, make("legend", {}, speech.say(key)), content);
    this.parts.legend = make("div", { class: "legend" });
    this.parts.divider = make("div", {}, slider(speech.say("divider"), this.divider, (share) => {
      this.divider = share;
      this.map.setDivider(share);
      this.parts.line.style.left = `${100 * share}%`;
    }));
    // A phone has no room for the list beside the map, so it begins closed there.
    const open = this.parts.layers.firstChild?.open ?? matchMedia("(min-width: 901px)").matches;
    const list = make(
      "details",
      { open },
      make("summary", {}, make("h2", {}, speech.say("layers"))),
      ...(several ? [fieldset("depth", make("div", { class: "depths" }, depths))] : []),
      fieldset("layer", radios),
      slider(speech.say("opacity"), this.opacity, (share) => {
        this.opacity = share;
        this.map.setOpacity(share);
      }),
      make("label", { class: "row" }, speech.say("compare"), make("select", { name: "compare", onchange: choose }, empty, options)),
      this.parts.divider,
      ...(boxes.length ? [fieldset("points", boxes)] : []),
      about.hides_sites ? make("p", { class: "note" }, speech.say("hides_sites")) : null,
    );
    this.parts.layers.replaceChildren(list, this.parts.legend);
    this.#legend();
  }

  #legend() {
    const { speech, about } = this;
    const shown = this.other ? [this.layer, this.other] : [this.layer];
    const parts = shown.map((layer) => legendOf(layer, about, speech, this.depth));
    const coloured = shown.some(({ classes }) => classes === "classes");
    for (const list of this.lists.filter(({ id }) => !this.hidden.has(id))) {
      parts.push(pointLegend(list, about, speech, this.depth, coloured));
    }
    this.parts.legend.replaceChildren(...parts);
    this.parts.divider.hidden = this.parts.line.hidden = !this.other;
    this.parts.line.style.left = `${100 * this.divider}%`;
  }

  #show() {
    this.parts.tip.hidden = true;
    this.#legend();
    this.#points();
    this.#paint();
    this.#again();
    this.#link();
  }

  // Points follow the depth, and whether their list is switched on.
  #points() {
    for (const one of this.map.points) {
      one.layer.setVisible(!this.hidden.has(one.list.id));
      one.setDepth(this.about, this.depth);
    }
  }

  async #paint() {
    const turn = ++this.pictures;
    const { name } = this.about.depths[this.depth];
    const main = await paint(this.layer, this.about, this.bands, name);
    const other = this.other && (await paint(this.other, this.about, this.bands, name));
    if (turn !== this.pictures) return; // another one was chosen meanwhile
    this.map.show(main, this.opacity);
    this.map.compare(other, this.opacity);
    this.root.dataset.shown = `${this.layer.id} ${name}`;
  }

  // Coordinates as text, such as 124.34° E, 52.76° N.
  #where(place) {
    const { speech, digits } = this;
    const [longitude, latitude] = this.map.toDegrees(place);
    const east = speech.say(longitude < 0 ? "west" : "east");
    const north = speech.say(latitude < 0 ? "south" : "north");
    const text = (value) => speech.number(Math.abs(value), digits);
    return `${text(longitude)}° ${east}, ${text(latitude)}° ${north}`;
  }

  async #hover(place, pixel) {
    const { tip } = this.parts;
    this.pointer = place;
    const near = place && this.map.pointAt(place, LARGEST);
    this.parts.map.style.cursor = near ? "pointer" : "";
    const cell = place && this.bands.cellAt(place);
    if (!cell) {
      tip.hidden = true;
      return;
    }
    const { speech, about, layer } = this;
    const depth = about.depths[this.depth];
    const type = { id: "type", classes: "classes" };
    const [value, code, number] = await Promise.all([
      valueOf(layer, about, this.bands, depth.name, cell),
      valueOf(type, about, this.bands, depth.name, cell),
      this.bands.value("region", cell),
    ]);
    if (place !== this.pointer) return;
    const lines = hoverLines(about, speech, layer, { region: number, code, value, where: this.#where(place) });
    if (near) lines.unshift(near[0].kind.line(near[1], about, speech, this.depth));
    tip.replaceChildren(...lines.map((line) => make("div", {}, line)));
    tip.hidden = false;
    const left = Math.min(pixel[0] + 14, this.parts.map.clientWidth - tip.offsetWidth - 4);
    const top = pixel[1] + 18 + tip.offsetHeight > this.parts.map.clientHeight ? pixel[1] - tip.offsetHeight - 12 : pixel[1] + 18;
    tip.style.transform = `translate(${Math.max(left, 4)}px, ${top}px)`;
  }

  // Answer what is in the cell at a place of the grid's projection; with a point, [list, point], what
  // is known of it, too, at its own place.
  async ask(asked, point = null) {
    const place = point ? point[1].place : asked;
    const cell = this.bands.cellAt(place);
    Object.assign(this, { place, point });
    for (const choice of this.root.querySelectorAll("select[data-points]")) {
      choice.value = point?.[0].id === choice.dataset.points ? point[1].name : "";
    }
    this.map.mark(place);
    this.#link();
    const { speech, about, depth } = this;
    const values = cell && (await readCell(about, this.bands, cell));
    if (place !== this.place || speech !== this.speech) return null;
    const mapped = values
      ? cellAnswer(about, speech, values, this.#where(place), depth)
      : [make("p", {}, speech.say("outside"))];
    const known = point ? point[0].kind.answer(point[1], about, speech, values) : [];
    const heading = point ? [make("h3", {}, speech.say("map_there"))] : [];
    this.parts.answer.replaceChildren(...known, ...heading, ...mapped);
    if (values) this.onCell(place);
    return values;
  }

  // Answer what is in rings of the grid's projection.
  async total(rings) {
    this.rings = rings;
    this.map.setArea(rings);
    this.#link();
    const { about, speech, depth } = this;
    const totals = await totalsOf(rings, about, this.bands, about.depths[depth].name);
    if (rings !== this.rings || speech !== this.speech) return null;
    this.parts.sum.replaceChildren(...areaAnswer(about, speech, totals, depth));
    return totals;
  }

  #form() {
    return placeForm(this.speech, (degrees) => {
      const place = this.map.fromDegrees(degrees);
      this.ask(place);
      if (this.bands.cellAt(place)) this.map.view.setCenter(place);
    });
  }

  #choices() {
    const chosen = (point) => {
      this.ask(point[1].place, point);
      this.map.view.setCenter(point[1].place);
    };
    return this.lists.map((list) => pointChoice(list, this.speech, chosen));
  }

  #tools() {
    const draw = (rectangle) => () => {
      this.map.draw(rectangle);
      this.parts.sum.textContent = this.speech.say(rectangle ? "draw_rectangle" : "draw_polygon");
    };
    const clear = () => {
      this.map.stopDrawing();
      this.map.setArea(null);
      this.rings = null;
      this.parts.sum.textContent = "";
      this.#link();
    };
    const view = () => this.total(this.map.inView);
    return areaTools(this.speech, { rectangle: draw(true), polygon: draw(false), view, clear });
  }

  #link() {
    if (!this.root.dataset.ready) return; // what the address asks for is not shown yet
    const { map, place, point, rings, about, hidden } = this;
    const text = (point, digits) => point.map((value) => Number(value.toFixed(digits))).join(",");
    this.onState({
      lang: this.speech.language,
      layer: this.layer.id,
      compare: this.other?.id ?? null,
      depth: about.depths[this.depth].name,
      view: `${text(map.toDegrees(map.view.getCenter()), 3)},${map.view.getZoom().toFixed(2)}`,
      hide: [...hidden].join(","),
      cell: place && !point ? text(map.toDegrees(place), 5) : null,
      point: point && `${point[0].id}:${point[1].name}`,
      area: rings && rings[0].map((point) => text(point, 0)).join(";"),
    });
  }
}
