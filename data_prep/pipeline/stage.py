"""Run one stage of a recipe: skip it if it is done, redo it if something changed, say why.

Usage: dad-stage --out FOLDER [--in PATH ...] [--resume] -- COMMAND [WORD ...]
       dad-stage --times WORK

The command makes the folder that stands for {out} in its command line; where it is told
to make something inside, as in {out}/file, the folder is there already. That folder,
FOLDER.part, gets its final name when the command has succeeded. FOLDER/stage.json then
holds the command line, the SHA-256 of every input and output, package versions, commit,
machine and seconds; FOLDER/log.txt what the command printed (FOLDER.log while it runs).

Run again, the stage is skipped as long as the command line, the inputs and the
outputs are the same. Otherwise it is run anew, and the reason is printed. After a
kill, --resume lets the command go on in the folder that it left behind, if its
settings and inputs are still the same. Runs that share a stage wait for each other.

Example:
  dad-stage --in corpora/general/text --out vocabulary -- \\
    python -m data_prep.vocabulary --train corpora/general/text --size 8000 --out {out}
"""

import contextlib
import ctypes
import difflib
import fcntl
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from data_prep import command
from data_prep.files import put_in_place, sha256
from data_prep.manifest import commit, machine, package_versions, read_json, write_json
from data_prep.training_log import summarise

RECORD = "stage.json"
LOG = "log.txt"
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
GRACE = 20  # seconds that a command has to end after SIGTERM
FAILURE = "dad-stage: error: "  # begins the last line of a log whose command failed
# what a stage writes about itself differs from run to run; it is no input of the next stage
ABOUT_ITSELF = {RECORD, LOG}


def main():
    command.run(_main, "dad-stage")


def _main():
    parser = command.parser(__doc__, "dad-stage")
    parser.add_argument("--out", help="folder that the stage makes")
    parser.add_argument(
        "--in", dest="inputs", action="append", default=[], metavar="PATH",
        help="file or folder that the command reads; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="the command can go on in a folder left by a kill"
    )
    parser.add_argument(
        "--screen", choices=["all", "lines", "train", "none"], default="all",
        help="what of the command's output to show; lines: no bars that move; train: a line for "
        "each fairseq log interval",
    )  # fmt: skip
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="stop when this process, our parent, has ended"
    )
    parser.add_argument(
        "--times", metavar="WORK",
        help="print how long each finished stage below WORK took, and how much of that was neither "
        "training nor decoding",
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="COMMAND", help="the command, after --")
    args = parser.parse_args()
    if args.times:
        from data_prep.pipeline import cost  # which needs this module

        print(times(args.times))
        print()
        print(cost.as_text(cost.split(args.times)))
        return 0
    if not args.out or not args.words:
        parser.error("a stage needs --out FOLDER and, after --, a command")
    if args.parent:
        end_with(args.parent)
    return run_stage(args.words, args.out, args.inputs, resume=args.resume, screen=args.screen)


def end_with(parent):
    """Have the system send us SIGTERM when our parent ends, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended before we asked
        signal.raise_signal(signal.SIGTERM)


def run_stage(words, out, inputs=(), *, resume=False, screen="all"):
    """Bring folder ``out`` up to date and return the exit status of the stage.

    Args:
        words: command line, a list; ``{out}`` in a word stands for the folder to fill.
        out: folder that the stage makes.
        inputs: files and folders that the command reads.
        resume: keep what a killed run of the same stage left.
        screen: ``all``, ``lines``, ``train`` or ``none``.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: ``out`` exists and was not made by a stage.
    """
    out = Path(out)
    if not any("{out}" in word for word in words):
        raise ValueError("the command of a stage must write to {out}; no word contains it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with lock(out) as lock_file:
        request = {"command": list(words), "inputs": fingerprint_inputs(inputs, out)}
        reasons = why_redo(out, request)
        if not reasons:
            say(f"{out}: done before, nothing changed")
            return 0
        say(f"{out}: {'; '.join(reasons)}")
        part, log = beside(out, ".part"), beside(out, ".log")
        clear_the_way(out, request, resume)
        if not (part / RECORD).exists():  # else killed between the last write and the rename
            started = time.monotonic()
            status = execute(words, part, log, lock_file, screen)
            if status != 0:
                show_failure(log, status, shown=screen in ("all", "lines"))
                return status
            seconds = time.monotonic() - started
            finish(part, log, request, seconds, cpu_seconds_of_children())
            say(f"{out}: done in {duration(seconds)}")
        put_in_place(part, out)
        for leftover in (log, beside(out, ".request.json")):
            leftover.unlink(missing_ok=True)
    return 0


def beside(out, suffix):
    """Path next to a stage's folder: ``.part``, ``.log``, ``.request.json``, ``.lock``."""
    return out.with_name(out.name + suffix)


# -- skip or redo --------------------------------------------------------------------------


def is_up_to_date(words, out, inputs=()):
    """Whether a stage is done and unchanged, as far as names, sizes and times of its files tell.

    Quick, and safe to ask: False too where a file would have to be read to know, where something is
    missing, or where another process is making the stage. ``run_stage`` then finds out.
    """
    out = Path(out)
    if not (out / RECORD).exists():
        return False
    try:
        with lock(out, wait=False):
            files = fingerprint_inputs(inputs, out, digest=_unread)
            return not why_redo(out, {"command": list(words), "inputs": files}, digest=_unread)
    except (_Unread, OSError, ValueError, KeyError):
        return False


class _Unread(Exception):
    """Only the content of a file would tell."""


def _unread(file):
    raise _Unread


def why_redo(out, request, digest=sha256):
    """Reasons, in words, why ``out`` has to be made again; empty when it is up to date."""
    if not out.exists():
        return ["going on after a stop" if beside(out, ".part").exists() else "to be made"]
    if not (out / RECORD).exists():
        raise ValueError(f"{out} exists but no stage made it ({RECORD} is missing); move it away")
    record = read_json(out / RECORD)
    reasons = []
    if record["command"] != request["command"]:
        reasons.append("settings changed: " + difference(record["command"], request["command"]))
    before = {name: entry["sha256"] for name, entry in record["inputs"].items()}
    now = {name: entry["sha256"] for name, entry in request["inputs"].items()}
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            kind = "new" if name not in before else "gone" if name not in now else "changed"
            reasons.append(f"input {name} is {kind}")
    for name, entry in record["outputs"].items():
        found = describe(out / name, entry, digest=digest) if (out / name).is_file() else None
        if found is None or found["sha256"] != entry["sha256"]:
            reasons.append(f"output {name} is {'missing' if found is None else 'changed'}")
    if len(reasons) > 4:
        reasons[3:] = [f"and {len(reasons) - 3} more"]
    return reasons


def difference(before, now):
    """The words that differ between two command lines, as ``old → new``."""
    changes = []
    matcher = difflib.SequenceMatcher(a=before, b=now, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        # the word before a changed value is most often its flag
        flag = f"{before[i - 1]} " if i and before[i - 1].startswith("--") else ""
        old, new = shlex.join(before[i:j]) or "nothing", shlex.join(now[k:m]) or "nothing"
        changes.append(f"{flag}{old} → {new}")
    return ", ".join(changes)


def fingerprint_inputs(inputs, out, digest=sha256):
    """{file name: size, time, SHA-256} of all input files; hashes are reused where they can be."""
    records = [path for path in (out / RECORD, beside(out, ".request.json")) if path.exists()]
    known = read_json(records[0])["inputs"] if records else {}
    found = {}
    for path in map(Path, inputs):
        if path.is_dir():
            made_by_stage = {}
            if (path / RECORD).exists():
                made_by_stage = read_json(path / RECORD)["outputs"]
            files = [file for file in sorted(path.rglob("*")) if is_content(file)]
            for file in files:
                name = str(file)
                hints = known.get(name), made_by_stage.get(str(file.relative_to(path)))
                found[name] = describe(file, *hints, digest=digest)
        elif path.exists():
            found[str(path)] = describe(path, known.get(str(path)), digest=digest)
        else:
            raise FileNotFoundError(f"{path}, an input of {out}, is missing")
    return found


def is_content(file):
    """Whether a file is data, as opposed to a record of how or when it was made."""
    return (
        file.is_file()
        and file.name not in ABOUT_ITSELF
        and file.name != "manifest.json"
        and not file.name.endswith(".manifest.json")
    )


def describe(file, *hints, digest=sha256):
    """Size, time and SHA-256 of a file; a hint of the same size and time spares the hashing."""
    stat = file.stat()
    for hint in hints:
        if hint and (hint["size"], hint["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return dict(hint)
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest(file)}


# -- running -------------------------------------------------------------------------------


def clear_the_way(out, request, resume):
    """Remove what an earlier run left half-made, unless this run can go on from there."""
    part, left = beside(out, ".part"), beside(out, ".request.json")
    same = left.exists() and comparable(read_json(left)) == comparable(request)
    if not (part.exists() and same and (resume or (part / RECORD).exists())):
        shutil.rmtree(part, ignore_errors=not part.exists())
        beside(out, ".log").unlink(missing_ok=True)
    write_json(left, request)


def comparable(request):
    """Command and input hashes: what must be equal for a stage to be the same."""
    hashes = {name: entry["sha256"] for name, entry in request["inputs"].items()}
    return request["command"], hashes


def execute(words, part, log_path, lock_file, screen):
    """Run the command, its output in the log and, as ``screen`` says, on stderr."""
    if any(word.startswith("{out}/") for word in words):
        part.mkdir(exist_ok=True)
    words = [word.replace("{out}", str(part)) for word in words]
    with open(log_path, "ab") as log:
        log.write(f"$ {shlex.join(words)}\n".encode())
        log.flush()
        start = log.tell()
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # a group of its own, so that a stop reaches the command's children too;
                # the lock is inherited, so a command that outlives us keeps it
                process_group=0, pass_fds=[lock_file.fileno()],
            )  # fmt: skip
        except FileNotFoundError:
            raise ValueError(f"the command {words[0]!r} is not on PATH; run recipes/bootstrap.sh")
    try:
        with open(log_path, "rb") as log:
            log.seek(start)
            while child.poll() is None:
                show(log, screen, part)
                time.sleep(0.1)
            show(log, screen, part)
    except BaseException:  # Ctrl-C or SIGTERM: stop the command's whole group, then ourselves
        stop(child)
        raise
    return child.returncode


def stop(child):
    """End a command and its children: ask them, and after ``GRACE`` seconds make them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=GRACE)
            break


def show(log, screen, part):
    """Copy what the log has gained to stderr, with the folder's final name."""
    if screen == "none":
        log.seek(0, os.SEEK_END)
    elif screen == "all":
        sys.stderr.buffer.write(
            log.read().replace(str(part).encode(), str(part.with_suffix("")).encode())
        )
        sys.stderr.flush()
    else:
        while line := log.readline():
            if not line.endswith(b"\n"):  # still being written
                log.seek(-len(line), os.SEEK_CUR)
                break
            text = line.decode("utf-8", "replace").rstrip("\n")
            if screen == "lines":  # of a bar what it showed last
                say(text.rpartition("\r")[2].replace(str(part), str(part.with_suffix(""))))
            elif summary := summarise(text):
                say(f"{part.with_suffix('')}: {summary}")


def show_failure(log, status, shown):
    """Say that the command failed, after the end of its output unless that was shown already."""
    if not shown:
        with open(log, encoding="utf-8", errors="replace") as file:
            say("".join(deque(file, maxlen=15)).rstrip("\n"))
    how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
    text = f"{FAILURE}the command {how}"
    say(f"{text}; its whole output is in {log}")
    with open(log, "a", encoding="utf-8") as file:  # for those who look later
        file.write(f"\n{text}\n")


def cpu_seconds_of_children():
    """User and system time of the commands that this process has waited for, and of theirs.

    Other work on the machine makes a stage take longer; this it hardly changes.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def finish(part, log, request, seconds, cpu_seconds):
    """Put log and record into the folder of a completed stage.

    Raises:
        ValueError: the command succeeded without making the folder.
    """
    if not part.is_dir():
        raise ValueError(
            f"the command ended well but made no folder {part}; its output is in {log}"
        )
    shutil.copyfile(log, part / LOG)
    outputs = {
        str(file.relative_to(part)): describe(file)
        for file in sorted(part.rglob("*"))
        if is_content(file)
    }
    record = {
        **request,
        "outputs": outputs,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "versions": package_versions(),
        "commit": commit(),
    }
    write_json(part / RECORD, record)


@contextlib.contextmanager
def lock(out, wait=True):
    """Hold the lock of a stage; wait, and say so, while another process builds it.

    Raises:
        BlockingIOError: another process builds it, and ``wait`` is false.
    """
    path = beside(out, ".lock")
    while True:
        file = open(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                file.close()
                raise
            say(f"{out}: waiting for another process that is making it")
            fcntl.flock(file, fcntl.LOCK_EX)
        # the holder before us removed the file: whoever comes next would lock another one
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()
    try:
        yield file
    finally:
        path.unlink(missing_ok=True)
        file.close()


def times(work):
    """Table of the finished stages below ``work`` in the order in which they finished.

    Raises:
        ValueError: there are none.
    """
    records = {path.parent: read_json(path) for path in Path(work).rglob(RECORD)}
    if not records:
        raise ValueError(f"no stage was finished in {work}")
    rows = [
        (str(folder.relative_to(work)), record["seconds"])
        for folder, record in sorted(records.items(), key=lambda item: item[1]["finished"])
    ]
    rows.append(("all", sum(seconds for _, seconds in rows)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {duration(seconds):>12}" for name, seconds in rows)


def duration(seconds):
    """Seconds in the largest units that fit, for people: 4 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
