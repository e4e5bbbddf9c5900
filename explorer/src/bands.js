// Bands: rasters in whole steps, opened block by block when they are needed.
// A number is steps + 1; 0 is a cell without a value. helpers/explorer/bands.py writes them.

const BLOCK_ROWS = 512;
const MOST_BYTES = 160e6; // of opened blocks that are kept

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Return what a text holds that `pack` of helpers/explorer/points.py made.
export async function unpack(text) {
  return JSON.parse(new TextDecoder().decode(await inflate(bytesOf(text))));
}

export class Bands {
  // `about` says what there is; `textOf` gives the text of a band by its name, or a promise of it.
  constructor(about, textOf) {
    this.grid = about.grid;
    this.described = about.bands;
    this.textOf = textOf;
    this.opened = new Map();
    this.size = 0;
  }

  has(name) {
    return name in this.described;
  }

  get blockCount() {
    return Math.ceil(this.grid.rows / BLOCK_ROWS);
  }

  // Return the numbers of a block; those used last are kept.
  async block(name, index) {
    const key = `${name} ${index}`;
    const known = this.opened.get(key);
    if (known) {
      this.opened.delete(key);
      this.opened.set(key, known);
      return known;
    }
    const opening = this.#open(name, index);
    this.opened.set(key, opening);
    this.size += this.#sizeOf(name);
    for (const old of this.opened.keys()) {
      if (this.size < MOST_BYTES || old === key) break;
      this.opened.delete(old);
      this.size -= this.#sizeOf(old.split(" ")[0]);
    }
    return opening;
  }

  async #open(name, index) {
    const text = (await this.textOf(name)).split(",")[index];
    const buffer = await inflate(bytesOf(text));
    return this.described[name].bytes === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  }

  #sizeOf(name) {
    return BLOCK_ROWS * this.grid.columns * this.described[name].bytes;
  }

  // Return the value of a cell, NaN without one.
  async value(name, { row, column }) {
    if (!this.has(name)) return NaN;
    const numbers = await this.block(name, Math.floor(row / BLOCK_ROWS));
    const number = numbers[(row % BLOCK_ROWS) * this.grid.columns + column];
    return number ? (number - 1) * this.described[name].step : NaN;
  }

  // Call back with the numbers of each row of a range: (row, numbers, offset of the row in them).
  // With several names, numbers and steps are lists of the same order.
  async eachRow(names, first, last, call) {
    for (let index = Math.floor(first / BLOCK_ROWS); index * BLOCK_ROWS <= last; index++) {
      const blocks = await Promise.all(names.map((name) => this.block(name, index)));
      const start = Math.max(first, index * BLOCK_ROWS);
      const end = Math.min(last, (index + 1) * BLOCK_ROWS - 1);
      for (let row = start; row <= end; row++) {
        call(row, blocks, (row - index * BLOCK_ROWS) * this.grid.columns);
      }
    }
  }

  // Return the cell at a place of the grid's projection; null outside.
  cellAt([easting, northing]) {
    const { left, top, width, height, rows, columns } = this.grid;
    const column = Math.floor((easting - left) / width);
    const row = Math.floor((top - northing) / height);
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    return inside ? { row, column } : null;
  }

  centreOf({ row, column }) {
    const { left, top, width, height } = this.grid;
    return [left + (column + 0.5) * width, top - (row + 0.5) * height];
  }

  get extent() {
    const { left, top, width, height, rows, columns } = this.grid;
    return [left, top - rows * height, left + columns * width, top];
  }
}
