// Builds ../static from the source: `node build.mjs`. With --check it writes nothing and fails where they differ.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const MOST_GZIP_BYTES = 60_000; // of both files together

const here = dirname(fileURLToPath(import.meta.url));
const folder = join(here, "..", "static");
const { outputFiles } = await build({
  absWorkingDir: here,
  entryPoints: { viewer: "app/main.tsx" },
  bundle: true,
  write: false,
  outdir: folder,
  format: "iife",
  target: "es2022",
  charset: "ascii", // the page may be read in any encoding
  minify: true,
  legalComments: "none",
  banner: { js: "/* Includes Preact, (c) Jason Miller, MIT licence. */" },
  jsx: "automatic",
  jsxImportSource: "preact",
});

let stale = 0;
await mkdir(folder, { recursive: true });
for (const { path, contents } of outputFiles) {
  if (!process.argv.includes("--check")) {
    await writeFile(path, contents);
  } else if (!(await readFile(path).catch(() => Buffer.alloc(0))).equals(contents)) {
    console.error(`static/${basename(path)} is not what the source builds. Run: npm run build`);
    stale = 1;
  }
}
const gzip_bytes = outputFiles.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0);
console.log(outputFiles.map(({ path, contents }) => `${basename(path)} ${contents.length} bytes`).join(", "), `(gzip ${gzip_bytes})`);
if (gzip_bytes > MOST_GZIP_BYTES) {
  console.error(`the bundle must take at most ${MOST_GZIP_BYTES} bytes with gzip, got ${gzip_bytes}`);
  stale = 1;
}
process.exit(stale);
