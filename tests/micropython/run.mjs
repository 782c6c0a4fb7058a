// Runs one MicroPython script in Node: node run.mjs INTERPRETER_FOLDER [-m HOST:GUEST]... SCRIPT [ARGUMENT]...
//
// Copies the HOST folders and files into the interpreter's memory file system, cuts sys.path to /lib (mount there what
// the script imports: the package's own frozen modules are not on a board), and runs SCRIPT as __main__. Standard
// output and error pass through; the exit code is the script's: SystemExit's, 1 after an exception, else 0.
// The heap of this build is not bounded and nothing is collected while Python runs: it shows what a script computes,
// not what it needs.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const HEAP_BYTES = 64 * 1024 * 1024; // first area; the interpreter grows it by itself
const words = process.argv.slice(2);
const folder = words.shift();
const mounts = [];
while (words[0] === '-m') {
  const [host, guest] = words[1].split(':');
  mounts.push([host, guest]);
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
    if (kept.length > 4096) flush();
  };
  return { write, flush };
}
const output = writer(1);
const errors = writer(2);

const { loadMicroPython } = await import(pathToFileURL(path.resolve(folder, 'micropython.mjs')));
const python = await loadMicroPython({
  heapsize: HEAP_BYTES, stdout: output.write, stderr: errors.write, linebuffer: false,
});

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

for (const [host, guest] of mounts) copyIn(host, guest);
copyIn(script, '/script.py');
python.globals.set('_words', JSON.stringify(words));

let code = 0;
try {
  python.runPython(`
import sys, json
sys.argv[:] = json.loads(_words)
sys.path[:] = ['/lib']
with open('/script.py') as _file:
    _source = _file.read()
exec(compile(_source, sys.argv[0], 'exec'), {'__name__': '__main__'})
`);
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
process.exitCode = code;
