// Bundle the page's script and style, with the licences of what is in them.
import { build } from "esbuild";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const folder = "../src/helpers/explorer/bundle";
const result = await build({
  entryPoints: { explorer: "src/page.js" },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  metafile: true,
  outdir: folder,
});

const inputs = Object.keys(result.metafile.inputs);
const names = inputs.map((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
const parts = [...new Set(names.filter(Boolean))].sort().map((name) => {
  const home = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${home}/package.json`, "utf8"));
  const file = readdirSync(home).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? readFileSync(`${home}/${file}`, "utf8").trim() : "";
  return `${name} ${version} (${license})\n\n${text}\n`;
});
const head = "The script and style of the page hold these libraries:\n";
// The text goes into a comment of the page, which two hyphens could end.
const licences = [head, ...parts].join("\n").replaceAll(/-{2,}/g, "-").replaceAll("\r", "");
writeFileSync(`${folder}/LICENSES.txt`, licences);
