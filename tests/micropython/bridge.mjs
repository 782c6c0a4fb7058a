// Makes blocking sockets, waits, chance and a shared clock for MicroPython out of a worker thread: the module `_bridge`.
//
// Python runs in the main thread and cannot give way to an event loop, so sockets live in a worker (sockets.mjs). A call
// posts its words to the worker and sleeps in Atomics.wait until the worker has put an answer into shared memory:
// [0] 1 when answered, [1] the answer (a number; below 0: minus an errno), then bytes. Bytes pass by address, so that
// no call makes garbage on Python's heap. Started by the first call that needs it.
import fs from 'node:fs';
import path from 'node:path';
import { randomFillSync } from 'node:crypto';
import { Worker } from 'node:worker_threads';

const DATA_BYTES = 64 * 1024; // of one transfer
const CLOCK_BYTES = 48; // deploy/clock.py: sequence, label_ms, monotonic_us, limit_ms, speed, sequence
const TICKS_PERIOD = 1 << 30; // as time.ticks_ms: a small integer, which costs no heap

export function makeBridge(python, clock) {
  const module = python._module; // 1.27 exports no HEAPU8, every version getValue and setValue
  const control = new Int32Array(new SharedArrayBuffer(8));
  const data = new Uint8Array(new SharedArrayBuffer(DATA_BYTES));
  const nap = new Int32Array(new SharedArrayBuffer(4));
  let worker = null;

  function ask(...words) {
    if (worker === null) {
      worker = new Worker(new URL('./sockets.mjs', import.meta.url), { workerData: { control, data } });
      worker.unref();
    }
    Atomics.store(control, 0, 0);
    worker.postMessage(words);
    Atomics.wait(control, 0, 0);
    return Atomics.load(control, 1);
  }

  function put(bytes, address, count) {
    for (let i = 0; i < count; i++) module.setValue(address + i, bytes[i], 'i8');
  }

  function take(bytes, address, count) {
    for (let i = 0; i < count; i++) bytes[i] = module.getValue(address + i, 'i8');
  }

  return {
    ticks_ms: () => Math.floor(performance.now()) % TICKS_PERIOD,
    ticks_us: () => Math.floor(performance.now() * 1000) % TICKS_PERIOD,
    sleep_ms: (wait_ms) => { Atomics.wait(nap, 0, 0, wait_ms); },
    random: (address, count) => put(randomFillSync(Buffer.alloc(count)), address, count),
    connect: (host, port, wait_ms) => ask('connect', host, port, wait_ms),
    line: (device) => ask('line', device), // a terminal that stands for a UART; then as a socket
    secure: (id, ca, certificate, key, name, wait_ms) => ask('secure', id, ca, certificate, key, name, wait_ms),
    send: (id, address, count) => {
      const size = Math.min(count, DATA_BYTES);
      take(data, address, size);
      return ask('send', id, size);
    },
    receive: (id, address, count, wait_ms) => {
      const got = ask('receive', id, Math.min(count, DATA_BYTES), wait_ms);
      if (got > 0) put(data, address, got);
      return got;
    },
    // ids: numbers separated by commas; how many of them have something to read, their numbers as bytes at `address`
    poll: (ids, wait_ms, address) => {
      const count = ask('poll', ids.split(',').map(Number), wait_ms);
      put(data, address, count);
      return count;
    },
    close: (id) => ask('close', id),
    clock_page: (address) => put(clock.page(), address, CLOCK_BYTES),
    clock_ns: (address) => put(clock.monotonic(), address, 8),
    clock_done: (address) => {
      const done = Buffer.alloc(16);
      take(done, address, 16);
      clock.done(done);
    },
  };
}

// A participant's end of the clock in a folder: deploy/clock.py says what the files hold.
export function openClock(folder, name) {
  const now = fs.openSync(path.join(folder, 'now'), 'r');
  const done = fs.openSync(path.join(folder, 'done-' + name), 'r+');
  const page = Buffer.alloc(CLOCK_BYTES);
  const monotonic = Buffer.alloc(8);
  return {
    page: () => { fs.readSync(now, page, 0, CLOCK_BYTES, 0); return page; },
    monotonic: () => { monotonic.writeBigInt64LE(process.hrtime.bigint()); return monotonic; },
    done: (bytes) => fs.writeSync(done, bytes, 0, bytes.length, 0),
  };
}
