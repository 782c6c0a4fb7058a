// Runs one MicroPython script in Node: node run.mjs INTERPRETER_FOLDER [OPTION VALUE]... SCRIPT [ARGUMENT]...
//
//   -m HOST:GUEST    copies a folder or file of the host into the interpreter's memory file system
//   -o GUEST:HOST    copies a folder out again in the end, whatever the end is
//   -h BYTES         the heap's size; its limit in an interpreter made by bounded.mjs, else only its first area
//   -l HOST          another folder than lib/: its modules as .mpy files, for compiling them takes heap as well
//   -c FOLDER:NAME   takes part in the clock that deploy/clock.py keeps in FOLDER
//   -f IMAGE         maps a ROMFS image outside the heap, as a board maps its flash: sys.path begins with it
//
// Cuts sys.path to /lib (mount there what the script imports: the package's own frozen modules are not on a board) and
// runs SCRIPT as __main__; a SCRIPT that is an .mpy file is imported instead, for source needs heap to be compiled.
// lib/ holds what boards have and this build has not: sockets, TLS, random bytes, by way of bridge.mjs. Standard output
// and error pass through; the exit code is the script's: SystemExit's, 1 after an exception, else 0.
// A stock build's heap is not bounded and nothing is collected while Python runs: it shows what a script computes, not
// what it needs.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { makeBridge, openClock } from './bridge.mjs';

const HEAP_BYTES = 64 * 1024 * 1024; // first area; a stock interpreter grows it by itself
const words = process.argv.slice(2);
const folder = words.shift();
const options = { '-m': [], '-o': [], '-h': [], '-l': [], '-c': [], '-f': [] };
while (words[0] in options) {
  options[words[0]].push(words[1].split(':'));
  words.splice(0, 2);
}
const script = words[0];

function writer(descriptor) {
  let kept = [];
  const flush = () => {
    for (let bytes = Buffer.from(kept), at = 0; at < bytes.length;) at += fs.writeSync(descriptor, bytes, at);
    kept = [];
  };
  const write = (bytes) => {
    for (const byte of bytes) kept.push(byte);
    if (kept.length > 4096 || kept[kept.length - 1] === 10) flush();
  };
  return { write, flush };
}
const output = writer(1);
const errors = writer(2);

const { loadMicroPython } = await import(pathToFileURL(path.resolve(folder, 'micropython.mjs')));
const python = await loadMicroPython({
  heapsize: Number(options['-h'][0] ?? HEAP_BYTES), stdout: output.write, stderr: errors.write, linebuffer: false,
});
const clock = options['-c'].length ? openClock(...options['-c'][0]) : null;
python.registerJsModule('_bridge', makeBridge(python, clock));

function makeFolder(guest) {
  let made = '';
  for (const part of guest.split('/').filter(Boolean)) {
    made += '/' + part;
    if (!python.FS.analyzePath(made).exists) python.FS.mkdir(made);
  }
}

function copyIn(host, guest) {
  if (fs.statSync(host).isDirectory()) {
    makeFolder(guest);
    for (const name of fs.readdirSync(host)) {
      if (name !== '__pycache__') copyIn(path.join(host, name), guest + '/' + name);
    }
  } else {
    makeFolder(path.posix.dirname(guest));
    python.FS.writeFile(guest, fs.readFileSync(host));
  }
}

function copyOut(guest, host) {
  fs.mkdirSync(host, { recursive: true });
  for (const name of python.FS.readdir(guest)) {
    if (name === '.' || name === '..') continue;
    const from = guest + '/' + name;
    if (python.FS.isDir(python.FS.stat(from).mode)) copyOut(from, path.join(host, name));
    else fs.writeFileSync(path.join(host, name), python.FS.readFile(from));
  }
}

const isCompiled = script.endsWith('.mpy');
copyIn(options['-l'][0]?.[0] ?? path.join(path.dirname(fileURLToPath(import.meta.url)), 'lib'), '/lib');
for (const [host, guest] of options['-m']) copyIn(host, guest);
copyIn(script, isCompiled ? '/lib/_script.mpy' : '/script.py');
python.globals.set('_words', JSON.stringify(words));

// The image lies where malloc puts it: no part of the heap, never collected, never moved.
function flash(host) {
  const image = fs.readFileSync(host);
  const address = python._module._malloc(image.length);
  for (let at = 0; at < image.length; at++) python._module.setValue(address + at, image[at], 'i8');
  return `
import uctypes, vfs
vfs.mount(vfs.VfsRom(uctypes.bytearray_at(${address}, ${image.length})), '/flash')
sys.path[:] = ['/flash', '/lib']
del uctypes, vfs
`;
}

const RUN = `
with open('/script.py') as _file:
    _source = _file.read()
exec(compile(_source, sys.argv[0], 'exec'), {'__name__': '__main__'})
`;
// The port collects every 16 KiB that it hands out; a board has no such threshold.
const IMPORT = `
import gc
gc.threshold(-1)
del _words
import _script
`;
let code = 0;
try {
  python.runPython(`
import sys, json
sys.argv[:] = json.loads(_words)
sys.path[:] = ['/lib']
${options['-f'].length ? flash(options['-f'][0][0]) : ''}
${isCompiled ? IMPORT : RUN}`);
} catch (error) {
  if (error.name !== 'PythonError') throw error;
  if (error.type === 'SystemExit') {
    const said = /SystemExit: ?(.*)/.exec(error.message);
    code = !said || !said[1] || said[1] === 'None' ? 0 : Number.isInteger(+said[1]) ? +said[1] : 1;
  } else {
    errors.write(Buffer.from(error.message.trimEnd() + '\n'));
    code = 1;
  }
}
output.flush();
errors.flush();
for (const [guest, host] of options['-o']) copyOut(guest, host);
process.exit(code); // the bridge's sockets end with it
