// Serves one interpreter's sockets in a worker thread: takes a call's words, answers through shared memory (bridge.mjs).
import fs from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import tty from 'node:tty';
import { parentPort, workerData } from 'node:worker_threads';

const { control, data } = workerData;
// Linux's numbers, as a board's OSError has them.
const ERRNO = { ECONNREFUSED: 111, ECONNRESET: 104, ETIMEDOUT: 110, EPIPE: 32, EHOSTUNREACH: 113, ENETUNREACH: 101 };
const EIO = 5, EBADF = 9, EAGAIN = 11, ETIMEDOUT = 110;
const ends = new Map(); // id (1 to 255, the lowest that is free): { socket, chunks, isHeard, isOver, errno, wake }

function answer(number) {
  Atomics.store(control, 1, number);
  Atomics.store(control, 0, 1);
  Atomics.notify(control, 0);
}

// The main thread sleeps while Python runs, and process.stderr would go through it.
const complain = (text) => fs.writeSync(2, `bridge: ${text}\n`);

// What comes is kept from the first use on: until then TLS may take the socket over.
function heard(id) {
  const end = ends.get(id);
  if (end !== undefined && !end.isHeard) {
    end.isHeard = true;
    end.socket.on('data', (chunk) => { end.chunks.push(chunk); end.wake(); });
    for (const name of ['end', 'close']) end.socket.on(name, () => { end.isOver = true; end.wake(); });
  }
  return end;
}

function keep(socket) {
  const end = { socket, chunks: [], isHeard: false, isOver: false, errno: 0, wake: () => {} };
  socket.on('error', (error) => { end.errno = ERRNO[error.code] ?? EIO; end.isOver = true; end.wake(); });
  return end;
}

const isReadable = (end) => end === undefined || end.chunks.length > 0 || end.isOver;

// Calls `ready` as soon as `test` holds, `late` after `wait_ms` (below 0: never); at once where either is so already.
function wait(watched, test, wait_ms, ready, late) {
  if (test()) return ready();
  if (wait_ms === 0) return late();
  let timer = null;
  const finish = (then) => {
    clearTimeout(timer);
    for (const end of watched) end.wake = () => {};
    then();
  };
  for (const end of watched) end.wake = () => { if (test()) finish(ready); };
  if (wait_ms > 0) timer = setTimeout(() => finish(late), wait_ms);
  return undefined;
}

// Answers 0 or `number` once the socket has said `event`, else minus an errno.
function shake(socket, event, wait_ms, done, failed) {
  const settle = (then) => {
    clearTimeout(timer);
    socket.removeListener('error', fail);
    socket.removeListener(event, finish);
    then();
  };
  const fail = (error) => settle(() => { socket.on('error', () => {}); socket.destroy(); failed(error); });
  const finish = () => settle(done);
  const timer = setTimeout(() => fail({ code: 'ETIMEDOUT' }), wait_ms);
  socket.once('error', fail);
  socket.once(event, finish);
}

function add(socket) {
  let id = 1;
  while (ends.has(id)) id++;
  ends.set(id, keep(socket));
  return id;
}

const calls = {
  line(device) {
    const { O_RDWR, O_NOCTTY, O_NONBLOCK } = fs.constants;
    const socket = new tty.ReadStream(fs.openSync(device, O_RDWR | O_NOCTTY | O_NONBLOCK)); // not fs: it would block
    socket.setRawMode(true);
    answer(add(socket));
  },
  connect(host, port, wait_ms) {
    const socket = net.connect({ host, port, noDelay: true });
    shake(socket, 'connect', wait_ms, () => answer(add(socket)), (error) => answer(-(ERRNO[error.code] ?? EIO)));
  },
  secure(id, ca, certificate, key, name, wait_ms) {
    const end = ends.get(id);
    if (end === undefined) return answer(-EBADF);
    if (end.isHeard) return answer(-EIO);
    const socket = tls.connect({
      socket: end.socket, ca, cert: certificate || undefined, key: key || undefined, minVersion: 'TLSv1.2',
      servername: net.isIP(name) ? undefined : name, host: name,
    });
    shake(socket, 'secureConnect', wait_ms, () => {
      ends.set(id, keep(socket));
      answer(0);
    }, (error) => {
      complain(`TLS with ${name}: ${error.message ?? error.code}`);
      end.isOver = true;
      answer(-(ERRNO[error.code] ?? EIO));
    });
    return undefined;
  },
  send(id, count) {
    const end = heard(id);
    if (end === undefined) return answer(-EBADF);
    if (end.isOver) return answer(-(end.errno || ERRNO.EPIPE));
    end.socket.write(Buffer.from(data.slice(0, count)), (error) => answer(error ? -ERRNO.EPIPE : count));
    return undefined;
  },
  receive(id, count, wait_ms) {
    const end = heard(id);
    if (end === undefined) return answer(-EBADF);
    return wait([end], () => isReadable(end), wait_ms, () => {
      if (!end.chunks.length) return answer(-end.errno); // 0: the other side has closed
      const first = end.chunks.shift();
      if (first.length > count) end.chunks.unshift(first.subarray(count));
      const piece = first.subarray(0, count);
      data.set(piece);
      return answer(piece.length);
    }, () => answer(wait_ms ? -ETIMEDOUT : -EAGAIN));
  },
  poll(ids, wait_ms) {
    const tell = () => {
      const found = ids.filter((id) => isReadable(ends.get(id)));
      data.set(found);
      answer(found.length);
    };
    const watched = ids.map(heard).filter((end) => end !== undefined);
    wait(watched, () => ids.some((id) => isReadable(ends.get(id))), wait_ms, tell, tell);
  },
  close(id) {
    const end = ends.get(id);
    if (end !== undefined) {
      end.socket.destroySoon(); // what was sent still goes out
      ends.delete(id);
    }
    answer(0);
  },
};

parentPort.on('message', ([name, ...words]) => {
  try {
    calls[name](...words);
  } catch (error) {
    complain(`${name}: ${error.stack}`);
    answer(-EIO);
  }
});
