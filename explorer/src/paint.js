// Layers as pictures: a canvas with a pixel for each cell.

export function rgb(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

const RAMP = 1023; // steps of a ramp

function pixel([r, g, b]) {
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

// Return the colours of a layer as numbers that pixels of ImageData have, and the factor that
// makes a value the index of its colour; values beyond the last one have its colour.
function colouring(layer, about) {
  if (layer.classes) {
    const classes = about[layer.classes];
    const colours = new Uint32Array(Math.max(...classes.map(({ code }) => code)) + 1);
    for (const { code, colour } of classes) colours[code] = pixel(rgb(colour));
    return { colours, factor: 1 };
  }
  const stops = layer.ramp.map(rgb);
  const most = stops.length - 1;
  const colours = Uint32Array.from({ length: RAMP + 1 }, (_, index) => {
    const place = (index / RAMP) * most;
    const low = Math.min(Math.floor(place), most - 1);
    return pixel(stops[low].map((c, i) => Math.round(c + (place - low) * (stops[low + 1][i] - c))));
  });
  return { colours, factor: RAMP / layer.high };
}

// Return the bands of a layer at a depth, with what each one's value is multiplied by.
export function bandsOf(layer, about, depth) {
  if (layer.id !== "storage") {
    return [{ name: layer.whole ? layer.id : `${layer.id}_${depth}`, factor: 1 }];
  }
  return about.depths.map(({ name, thickness }) => {
    const held = `held_${name}`;
    return { name: held in about.bands ? held : `ice_${name}`, factor: thickness };
  });
}

// Return the value of a layer in a cell, NaN without one.
export async function valueOf(layer, about, bands, depth, cell) {
  const parts = bandsOf(layer, about, depth);
  const values = await Promise.all(parts.map(({ name }) => bands.value(name, cell)));
  return values.reduce((sum, value, i) => sum + value * parts[i].factor, 0);
}

// Return a canvas of a layer at a depth.
export async function paint(layer, about, bands, depth) {
  const { rows, columns } = about.grid;
  const parts = bandsOf(layer, about, depth);
  const names = parts.map(({ name }) => name);
  const { colours, factor } = colouring(layer, about);
  const factors = parts.map((part) => part.factor * about.bands[part.name].step * factor);
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  await bands.eachRow(names, 0, rows - 1, (row, blocks, offset) => {
    const start = row * columns;
    for (let column = 0; column < columns; column++) {
      let place = 0;
      let found = true;
      for (let k = 0; k < blocks.length; k++) {
        const number = blocks[k][offset + column];
        if (number === 0) found = false;
        place += (number - 1) * factors[k];
      }
      if (found) pixels[start + column] = colours[Math.min(Math.round(place), colours.length - 1)];
    }
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
