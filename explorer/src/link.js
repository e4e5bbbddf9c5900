// The address of the page holds what is shown: language, layer, depth, cell, area and view.

// Return what an address says, as texts by name.
export function readLink(hash) {
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
}

export function numbers(text, count) {
  const found = (text ?? "").split(",").map(Number);
  return found.length === count && found.every(Number.isFinite) ? found : null;
}

// Return corners from a text such as `1,2;3,4;5,6`; null if there are fewer than three.
export function corners(text) {
  const found = (text ?? "").split(";").map((pair) => numbers(pair, 2));
  return found.length > 2 && found.every(Boolean) ? found : null;
}

export function writeLink(state) {
  const kept = Object.entries(state).filter(([, value]) => value !== null && value !== "");
  // These characters may stand in an address, and are easier to read as they are.
  const text = new URLSearchParams(kept).toString().replaceAll("%2C", ",").replaceAll("%3B", ";").replaceAll("%3A", ":");
  history.replaceState(null, "", `#${text}`);
}
