// Bundles the page into the package: each file compressed and, but for the page itself, with its hash in its name.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = import.meta.dirname;
const target = join(here, "..", "src", "tallybook", "dashboard");

const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: { dashboard: "src/main.tsx", icon: "src/icon.svg" },
  outdir: target,
  entryNames: "[name]-[hash]",
  loader: { ".svg": "copy" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome120", "firefox128", "safari17.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
  write: false,
});

let page = readFileSync(join(here, "index.html"), "utf8");
const places = { ".svg": "%ICON%", ".css": "%STYLE%", ".js": "%SCRIPT%" };
const files = new Map();
for (const { path, contents } of outputFiles) {
  page = page.replace(places[extname(path)], `/assets/${basename(path)}`);
  files.set(`${basename(path)}.gz`, contents);
}
files.set("index.html.gz", page);
// Whose work is in the script, under which terms: it goes where the script goes.
const packages = Object.keys(metafile.inputs).flatMap(
  (path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? [],
);
const licences = [...new Set(packages)].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  return `${name}\n\n${readFileSync(join(folder, file), "utf8")}`;
});
const terms = licences.join("\n\n");
const hash = createHash("sha256").update(terms).digest("hex").slice(0, 8).toUpperCase();
files.set(`licences-${hash}.txt.gz`, terms);

// What a server may be reading is replaced, never missing.
mkdirSync(target, { recursive: true });
for (const [name, contents] of files) {
  writeFileSync(join(target, `${name}.new`), gzipSync(contents, { level: 9 }));
  renameSync(join(target, `${name}.new`), join(target, name));
}
for (const name of readdirSync(target)) if (!files.has(name)) rmSync(join(target, name));
