"""Checks the runner itself: exit codes, arguments, mounts, and that nothing but our folders can be imported."""

from pathlib import Path

from tests.micropython.interpreter import Run


def _script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_words_output_and_exit_code_pass_through(tmp_path: Path, micropython: Run) -> None:
    script = _script(tmp_path, "import sys\nprint('words', sys.argv[1:], __name__)\nsys.exit(7)\n")
    done = micropython(script, "one", "two three")
    assert (done.returncode, done.stdout) == (7, "words ['one', 'two three'] __main__\n")


def test_an_exception_is_exit_code_one_and_a_traceback(tmp_path: Path, micropython: Run) -> None:
    done = micropython(_script(tmp_path, "print('before')\nraise ValueError('no good')\n"))
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "ValueError: no good" in done.stderr and "line 2" in done.stderr


def test_exit_without_a_number_is_success_and_with_a_text_failure(tmp_path: Path, micropython: Run) -> None:
    assert micropython(_script(tmp_path, "raise SystemExit\n")).returncode == 0
    assert micropython(_script(tmp_path, "raise SystemExit('why')\n")).returncode == 1


def test_mounts_are_readable_and_what_a_board_lacks_is_not_importable(tmp_path: Path, micropython: Run) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file.bin").write_bytes(bytes(range(256)))
    script = _script(tmp_path, "import hashlib\n"
                     "print(hashlib.sha256(open('/data/file.bin', 'rb').read()).digest()[:4])\n"
                     "for name in ('hmac', 'datetime', 'functools', 'gateway'):\n"
                     "    try:\n        __import__(name)\n        print('here', name)\n"
                     "    except ImportError:\n        pass\n")
    done = micropython(script, mounts={tmp_path / "data": "/data"})
    assert (done.returncode, done.stdout) == (0, "b'@\\xaf\\xf2\\xe9'\n")
