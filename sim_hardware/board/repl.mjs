// Makes a board's MicroPython prompt, friendly and raw, on standard input and output:
// node repl.mjs INTERPRETER FLASH VFS KEPT ANSWER
//
// INTERPRETER is the folder of npm's @micropython/micropython-webassembly-pyscript (1.27), FLASH the file of the whole
// flash, VFS a folder with what its file system holds. That folder is brought up to date whenever code has run, before
// anything is said about it: one byte goes out on descriptor KEPT, one comes in on ANSWER when it is on flash.
// Input is read by the interpreter's own thread and blocks it, as on a board; the end of input ends the board.
import fs from 'node:fs';
import path from 'node:path';
import { randomFillSync } from 'node:crypto';
import { fileURLToPath, pathToFileURL } from 'node:url';

const HEAP_BYTES = 16 * 1024 * 1024; // npm's build collects between lines only: a board's own limit is not shown here
const PASTE_WINDOW = 2048; // bytes a sender may be ahead in raw-paste mode
const CTRL_A = 1, CTRL_B = 2, CTRL_C = 3, CTRL_D = 4, CTRL_E = 5;
const FORCED_EXIT = 0x100; // of a line of input: soft reset
const HIDDEN = ['dev', 'proc', 'tmp', 'home', '.sim']; // folders of this interpreter, none of a board's
const [, , interpreter, flashFile, vfsFolder, kept, answer] = process.argv;
const { loadMicroPython } = await import(pathToFileURL(path.resolve(interpreter, 'micropython.mjs')));
const lib = path.join(path.dirname(fileURLToPath(import.meta.url)), 'lib');
const flash = fs.openSync(flashFile, 'r+');

let said = []; // output that is not yet out
let skipped = 0; // of "OK", which raw mode says and raw-paste mode does not
let hasRun = false; // something since the last look at the files
let python = null;
let known = new Map(); // guest path: its bytes as last written to VFS
let heard = Buffer.alloc(0);
let heardAt = 0;

function out(bytes) {
  for (const byte of bytes) {
    if (skipped > 0) skipped--;
    else said.push(byte);
  }
  if (said.length > 1024) flush();
}

function flush() {
  const bytes = Buffer.from(said);
  said = [];
  for (let at = 0; at < bytes.length;) at += fs.writeSync(1, bytes, at);
}

function nextByte() {
  if (heardAt === heard.length) {
    if (hasRun) keepFiles();
    flush();
    const chunk = Buffer.alloc(65536);
    const count = fs.readSync(0, chunk);
    if (count === 0) process.exit(0);
    heard = chunk.subarray(0, count);
    heardAt = 0;
  }
  return heard[heardAt++];
}

function* filesOf(folder) {
  for (const name of python.FS.readdir(folder || '/')) {
    if (name === '.' || name === '..' || (folder === '' && HIDDEN.includes(name))) continue;
    const guest = `${folder}/${name}`;
    if (python.FS.isDir(python.FS.stat(guest).mode)) {
      yield [guest, null];
      yield* filesOf(guest);
    } else {
      yield [guest, Buffer.from(python.FS.readFile(guest))];
    }
  }
}

function keepFiles() {
  hasRun = false;
  const found = new Map(filesOf(''));
  let changes = 0;
  for (const guest of [...known.keys()].reverse()) {
    if (found.has(guest)) continue;
    fs.rmSync(path.join(vfsFolder, guest), { recursive: true, force: true });
    changes++;
  }
  for (const [guest, bytes] of found) {
    const before = known.get(guest);
    if (before !== undefined && (bytes === null || before === null ? bytes === before : bytes.equals(before))) continue;
    if (bytes === null) fs.mkdirSync(path.join(vfsFolder, guest), { recursive: true });
    else fs.writeFileSync(path.join(vfsFolder, guest), bytes);
    changes++;
  }
  known = found;
  if (changes) {
    fs.writeSync(Number(kept), 's');
    fs.readSync(Number(answer), Buffer.alloc(1));
  }
}

function copyIn(host, guest) {
  for (const entry of fs.readdirSync(host, { withFileTypes: true })) {
    const target = `${guest}/${entry.name}`;
    if (entry.name === '__pycache__') continue;
    if (entry.isDirectory()) {
      if (!python.FS.analyzePath(target).exists) python.FS.mkdir(target);
      copyIn(path.join(host, entry.name), target);
    } else {
      python.FS.writeFile(target, fs.readFileSync(path.join(host, entry.name)));
    }
  }
}

// What lib/ is made from: flash by absolute offset, bytes by address in the interpreter's memory.
function hardware() {
  const module = python._module;
  const put = (bytes, address) => bytes.forEach((byte, i) => module.setValue(address + i, byte, 'i8'));
  const read = (offset, count) => {
    const bytes = Buffer.alloc(count);
    fs.readSync(flash, bytes, 0, count, offset);
    return bytes;
  };
  return {
    random: (address, count) => put(randomFillSync(Buffer.alloc(count)), address),
    read: (offset, address, count) => put(read(offset, count), address),
    program: (offset, address, count) => {
      const bytes = read(offset, count);
      for (let i = 0; i < count; i++) bytes[i] &= module.getValue(address + i, 'i8');
      fs.writeSync(flash, bytes, 0, count, offset);
    },
    erase: (offset, count) => { fs.writeSync(flash, Buffer.alloc(count, 255), 0, count, offset); },
  };
}

async function boot() {
  const streams = { stdin: nextByte, stdout: out, stderr: out, linebuffer: false };
  python = await loadMicroPython({ heapsize: HEAP_BYTES, ...streams });
  python.registerJsModule('_board', hardware());
  python.FS.mkdir('/.sim');
  copyIn(lib, '/.sim');
  copyIn(vfsFolder, '');
  known = new Map(filesOf(''));
  python.runPython("import sys\nsys.path[:] = ['', '/.sim', '/lib']\nimport start");
  hasRun = true;
  python.replInit();
}

// Raw-paste (the sender's fast mode) is answered here: this build's reader of input cannot wait for a window.
// Returns what the interpreter says to the code, like one more byte of input would.
function paste() {
  const code = [];
  out([0x52, 1, PASTE_WINDOW & 255, PASTE_WINDOW >> 8]);
  for (let left = PASTE_WINDOW; ;) {
    const byte = nextByte();
    if (byte === CTRL_D || byte === CTRL_C) {
      out([CTRL_D]);
      if (byte === CTRL_C) { // the sender gave up: an empty run
        out([CTRL_D, CTRL_D, 0x3e]);
        return 0;
      }
      break;
    }
    code.push(byte);
    if (--left === 0) {
      out([1]);
      left = PASTE_WINDOW;
    }
  }
  for (const byte of code) python.replProcessChar(byte);
  skipped = 2;
  return python.replProcessChar(CTRL_D);
}

for (let isRaw = false; ;) {
  await boot();
  if (isRaw) python.replProcessChar(CTRL_A);
  for (let line = [], result = 0; !(result & FORCED_EXIT);) {
    const byte = nextByte();
    hasRun = true;
    if (isRaw && byte === CTRL_A && line.length === 2 && line[0] === CTRL_E && line[1] === 0x41) { // ^E A ^A
      line = [];
      python.replProcessChar(CTRL_C); // forgets the line
      result = paste();
      continue;
    }
    line = byte === CTRL_E ? [byte] : byte < CTRL_E ? [] : line.length < 2 ? [...line, byte] : line;
    if (byte === CTRL_A) isRaw = true;
    if (byte === CTRL_B) isRaw = false;
    result = python.replProcessChar(byte);
  }
  keepFiles();
  out(Buffer.from('MPY: soft reboot\r\n'));
}
