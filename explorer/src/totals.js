// Totals of the cells whose centre lies in a polygon.

// Return the runs of columns [first, last] of a row whose centres lie in rings, by even and odd.
export function runsOf(rings, grid, row) {
  const northing = grid.top - (row + 0.5) * grid.height;
  const crossings = [];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i++) {
      const [x1, y1] = ring[i];
      const [x2, y2] = ring[(i + 1) % ring.length];
      if (y1 > northing !== y2 > northing) {
        crossings.push(x1 + ((northing - y1) / (y2 - y1)) * (x2 - x1));
      }
    }
  }
  crossings.sort((a, b) => a - b);
  const runs = [];
  for (let i = 0; i + 1 < crossings.length; i += 2) {
    const first = Math.ceil((crossings[i] - grid.left) / grid.width - 0.5);
    const last = Math.ceil((crossings[i + 1] - grid.left) / grid.width - 0.5) - 1;
    const clipped = [Math.max(first, 0), Math.min(last, grid.columns - 1)];
    if (clipped[0] <= clipped[1]) runs.push(clipped);
  }
  return runs;
}

// Return the totals of rings: areas in km2 (of all cells, mapped, by class at a depth) and the ice
// of each depth layer in km3, by the areas of cells on the ellipsoid.
export async function totalsOf(rings, about, bands, depth) {
  const { grid, depths, classes } = about;
  const iceBands = depths.map(({ name }) => (bands.has(`held_${name}`) ? "held_" : "ice_") + name);
  const withIce = bands.has(iceBands[0]);
  const names = [`type_${depth}`, ...(withIce ? iceBands : []), ...(bands.has("area") ? ["area"] : [])];
  const heights = rings.flat().map(([, northing]) => (grid.top - northing) / grid.height);
  const first = Math.max(0, Math.floor(Math.min(...heights)));
  const last = Math.min(grid.rows - 1, Math.ceil(Math.max(...heights)));
  const result = { cells: 0, area: 0, mapped: 0, byClass: new Map(), ice: withIce ? depths.map(() => 0) : [] };
  const steps = names.map((name) => about.bands[name].step);
  const areaAt = bands.has("area") ? names.length - 1 : -1;
  await bands.eachRow(names, first, last, (row, blocks, offset) => {
    for (const [from, to] of runsOf(rings, grid, row)) {
      for (let i = offset + from; i <= offset + to; i++) {
        let area = grid.least_area;
        if (areaAt >= 0) area += (blocks[areaAt][i] - 1) * steps[areaAt];
        result.cells += 1;
        result.area += area;
        const code = blocks[0][i] - 1;
        if (code < 0) continue;
        result.mapped += area;
        result.byClass.set(code, (result.byClass.get(code) ?? 0) + area);
        for (let k = 0; k < result.ice.length; k++) {
          const number = blocks[1 + k][i];
          if (number) result.ice[k] += (area * (number - 1) * steps[1 + k] * depths[k].thickness) / 1000;
        }
      }
    }
  });
  result.byClass = classes.map(({ code }) => result.byClass.get(code) ?? 0);
  return result;
}
