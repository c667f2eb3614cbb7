// Installs the project in the current folder below a root, as `npm install --global` would with the
// prefix /usr: files and production dependencies in lib/node_modules/NAME, links to programs in bin.
// Usage: node npm-install.cjs ROOT

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { execFileSync } = require("node:child_process");

const root = process.argv[2];
const manifest = JSON.parse(fs.readFileSync("package.json", "utf8"));
const name = manifest.name;
if (typeof name !== "string" || !/^(@[\w.~-]+\/)?[\w~-][\w.~-]*$/.test(name)) {
  console.error("package.json has no name: give it one, or give the recipe a script of its own");
  process.exit(1);
}
const home = path.join(root, "usr/lib/node_modules", name);

// What a project says to publish, where it says so; else all of it but what only development needs.
function files() {
  if (Array.isArray(manifest.files)) {
    const answer = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      encoding: "utf8",
      maxBuffer: 1 << 30,
    });
    return JSON.parse(answer)[0].files.map((file) => file.path).filter((file) => file !== "node_modules");
  }
  return fs.readdirSync(".").filter((file) => file !== "node_modules" && file !== ".git");
}

const options = { recursive: true, verbatimSymlinks: true };
fs.mkdirSync(home, { recursive: true });
for (const file of files().sort()) {
  if (file.startsWith("node_modules/")) continue;
  fs.mkdirSync(path.dirname(path.join(home, file)), { recursive: true });
  fs.cpSync(file, path.join(home, file), options);
}
if (fs.existsSync("node_modules")) {
  fs.cpSync("node_modules", path.join(home, "node_modules"), options);
}
// npm's own notes, and caches of tools: nothing that runs reads them.
for (const note of [".package-lock.json", ".cache", ".vite"]) {
  fs.rmSync(path.join(home, "node_modules", note), { recursive: true, force: true });
}

const base = name.split("/").pop();
const programs = typeof manifest.bin === "string" ? { [base]: manifest.bin } : manifest.bin || {};
for (const [program, file] of Object.entries(programs)) {
  const target = path.join(home, file);
  if (path.basename(program) !== program || !target.startsWith(home + path.sep) || !fs.existsSync(target)) {
    console.error(`package.json: the program ${program} (${file}) is not there after the build`);
    process.exit(1);
  }
  fs.chmodSync(target, 0o755);
  const bin = path.join(root, "usr/bin");
  fs.mkdirSync(bin, { recursive: true });
  fs.symlinkSync(path.relative(bin, target), path.join(bin, program));
}
