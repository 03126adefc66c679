"""What a model's process can reach: its own folder and what it computes with; nothing of the node."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from node.errors import ModelCrashed, ModelNotConfined
from node.processes import confinement
from tests.support.made_models import install
from tests.support.model_runs import PATIENCE_SECONDS, ModelRuns

ROOT = Path(__file__).parents[2]
#: Try something and say what becomes of it.
TRYING = """
import os, socket
def outcome(work):
    try:
        return repr(work())
    except OSError as error:
        return type(error).__name__ + " " + os.strerror(error.errno or 0)
"""
#: As if the system had no ``mount_setattr``.
OLD_SYSTEM = "from node.processes import system_calls; system_calls._SYS_MOUNT_SETATTR = 100_000"
NOT_THERE, READ_ONLY = "FileNotFoundError", "OSError Read-only file system"
#: Start a process that leaves its group, its session and its parent.
DAEMON = """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        os.chdir("/")
        if hasattr(model, "mark"):
            open(model.mark, "w").close()
        time.sleep(600)
    os._exit(0)
os.wait()
"""


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "package", monkeypatch)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[ModelRuns]:
    (tmp_path / "data" / "archive").mkdir(parents=True)
    (tmp_path / "data" / "archive" / "image.dcm").write_text("of another patient")
    (tmp_path / "key.pem").write_text("of the node")
    runs = ModelRuns(tmp_path / "data", hidden=[tmp_path / "key.pem", tmp_path / "absent"])
    yield runs
    runs.workers.stop()
    assert runs.left() == []


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        yield listener, listener.getsockname()[1]


def tried(runs: ModelRuns, expression: str, **settings: object) -> str:
    return runs.told(f"{TRYING}\nsaid = outcome(lambda: {expression})", **settings)


def calling(port: int) -> str:
    return f"socket.create_connection(('127.0.0.1', {port}), 5).close()"


def has_called(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_this_system_permits_all_of_it() -> None:
    assert confinement.is_confinable()


@pytest.mark.parametrize("calls", ["", OLD_SYSTEM], ids=["today", "before-Linux-5.12"])
def test_it_works_for_a_user_without_privileges(calls: str) -> None:
    script = (
        f"import ctypes, os\nfrom node.processes import confinement\n{calls}\n"
        "if os.getuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # as if it had begun as that user
        "confinement.main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_an_older_system_keeps_the_disk_read_only_as_well(tmp_path: Path) -> None:
    odd = tmp_path / "a folder"
    odd.mkdir()
    script = (
        f"import os\nfrom node.processes import confinement\n{OLD_SYSTEM}\n{TRYING}\n"
        "confinement.leave('whole', allow_network=False)\n"
        "child = os.fork()\n"
        "if child: raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        f"confinement.shut_in(confinement.Cell(('/run',), (), ({str(odd)!r},)))\n"
        "confinement.give_up_privileges()\n"
        f"for path in ('/new', '/dev/new', '/run/new', {str(tmp_path / 'new')!r}, 'new', '/dev/shm/new'):\n"
        "    print(outcome(lambda: open(path, 'w').close()), flush=True)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [READ_ONLY] * 4 + ["None"] * 2


# --- the disk ----------------------------------------------------------------


def test_a_model_writes_nowhere_but_in_its_own_folder(runs: ModelRuns, tmp_path: Path) -> None:
    for path in (
        tmp_path / "new",
        tmp_path / "package" / "new",
        ROOT / "new",
        Path("/new"),
        Path("/dev/new"),
    ):
        assert tried(runs, f"open({str(path)!r}, 'w')") == READ_ONLY
        assert not path.exists()
    assert tried(runs, f"os.remove({str(tmp_path / 'key.pem')!r})").startswith("OSError")
    assert tried(runs, f"os.rename({str(tmp_path / 'package')!r}, {str(tmp_path / 'moved')!r})") == READ_ONLY
    assert tried(runs, f"os.chmod({str(tmp_path)!r}, 0o777)") == READ_ONLY
    assert tried(runs, "open('new', 'w').write('1')") == "1"
    assert tried(runs, "open(os.path.expanduser('~/new'), 'w').write('1')") == "1"
    assert tried(runs, "open('/dev/shm/new', 'w').write('1')") == "1"
    assert not Path("/dev/shm/new").exists()


def test_a_model_cannot_change_its_inputs(runs: ModelRuns) -> None:
    given = "os.getcwd().replace('/made/', '/given/')"
    assert "job.json" in tried(runs, f"os.listdir({given})")
    assert tried(runs, f"open({given} + '/job.json', 'w')") == READ_ONLY
    assert tried(runs, f"os.chmod({given} + '/job.json', 0o777)") == READ_ONLY
    assert tried(runs, f"os.remove({given} + '/job.json')") == READ_ONLY
    with pytest.raises(ModelCrashed, match="read-only"):
        runs.told("inputs.volume.voxels[0] = 1")


def test_a_model_finds_nothing_of_the_node_and_of_other_runs(runs: ModelRuns, tmp_path: Path) -> None:
    data = str(runs.data_dir)
    runs.run("brightness")
    others = {one.name for one in runs.left()}
    assert others
    assert tried(runs, f"os.listdir({data!r})") == "['work']"
    assert not others & set(tried(runs, f"os.listdir({data + '/work'!r})").split("'"))
    for path in (
        f"{data}/archive/image.dcm",
        f"/proc/1/root{data}/archive/image.dcm",
        "/proc/1/cwd/../../../archive/image.dcm",
        "/proc/self/cwd/../../../../archive/image.dcm",
        f"/proc/{os.getpid()}/root{data}/archive/image.dcm",
    ):
        assert tried(runs, f"open({path!r})").startswith((NOT_THERE, "PermissionError")), path
    assert tried(runs, f"open({data + '/new'!r}, 'w')") == READ_ONLY
    key = f"open({str(tmp_path / 'key.pem')!r})"
    assert tried(runs, key).startswith((NOT_THERE, "PermissionError"))
    assert tried(runs, key, allow_network=True).startswith("PermissionError")
    assert sorted(one.name for one in runs.data_dir.iterdir()) == ["archive", "work"]


def test_a_key_that_is_renewed_is_not_seen_by_a_process_of_before(runs: ModelRuns, tmp_path: Path) -> None:
    # The folder of temporary files, in which this one lies, is hidden altogether without it.
    first = runs.told("said = model.name", allow_network=True)
    assert runs.told("said = model.name", allow_network=True) == first
    (tmp_path / "new.pem").write_text("of the node, too")
    (tmp_path / "new.pem").replace(tmp_path / "key.pem")
    tried_again = tried(runs, f"open({str(tmp_path / 'key.pem')!r})", allow_network=True)
    assert tried_again.startswith("PermissionError")


def test_what_is_open_in_the_process_leads_nowhere(runs: ModelRuns) -> None:
    code = (
        "import os, stat\nfound = []\n"
        "for one in os.listdir('/proc/self/fd'):\n"
        "    try: mode = os.stat(f'/proc/self/fd/{one}').st_mode\n"
        "    except OSError: continue\n"
        "    if stat.S_ISDIR(mode): found.append(os.readlink(f'/proc/self/fd/{one}'))\n"
        "said = [one for one in found if not one.startswith('/proc')]"
    )
    assert runs.told(code) == "[]"


def test_a_model_that_makes_itself_root_in_a_namespace_finds_no_more(runs: ModelRuns) -> None:
    data = str(runs.data_dir)
    script = (
        f"umount {data}; mount -o remount,rw,bind /; mount --bind / /mnt; ls {data} /mnt{data}; touch /new"
    )
    command = ["unshare", "-Urm", "sh", "-c", script]
    said = runs.told(
        f"import subprocess\nsaid = subprocess.run({command!r}, capture_output=True, text=True).stdout"
    )
    assert "archive" not in said
    assert not Path("/new").exists()


def test_a_model_has_no_privileges_and_gets_none(runs: ModelRuns) -> None:
    said = runs.told("said = open('/proc/self/status').read()")
    facts = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[kind], 16) == 0, kind
    assert facts["NoNewPrivs"] == "1"
    assert tried(runs, "os.chroot('.')") == "PermissionError Operation not permitted"


def test_of_the_devices_there_are_none_of_storage(runs: ModelRuns) -> None:
    said = runs.told(
        "import os, stat\n"
        "said = [one for one in os.listdir('/dev') if stat.S_ISBLK(os.stat('/dev/' + one).st_mode)]"
    )
    assert said == "[]"
    assert tried(runs, "len(open('/dev/urandom', 'rb').read(8))") == "8"
    assert tried(runs, "open('/dev/null', 'w').write('1')") == "1"


def test_the_model_folder_is_seen_though_it_lies_beside_the_archive(runs: ModelRuns) -> None:
    folder = runs.data_dir / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("1 2 3")
    (folder.parent / "other").write_text("of another model")
    path = str(folder / "weights")
    assert tried(runs, f"open({path!r}).read()", folder=folder) == "'1 2 3'"
    assert tried(runs, f"open({path!r}, 'w')", folder=folder) == READ_ONLY
    assert tried(runs, f"os.listdir({str(folder.parent)!r})", folder=folder) == "['mine']"


# --- the network -------------------------------------------------------------


def test_a_model_opens_no_socket_to_anywhere(runs: ModelRuns) -> None:
    with listening() as (listener, port):
        assert "unreachable" in tried(runs, calling(port))
        assert not has_called(listener)


def test_sockets_that_are_files_or_names_are_not_reached(runs: ModelRuns, tmp_path: Path) -> None:
    name = f"\0anode-test-{os.getpid()}-{tmp_path.name}"
    short = f"/proc/self/fd/{os.open(runs.data_dir, os.O_PATH)}/import.socket"
    call = "socket.socket(socket.AF_UNIX).connect({!r})"
    with socket.socket(socket.AF_UNIX) as by_file, socket.socket(socket.AF_UNIX) as by_name:
        by_file.bind(short)
        by_name.bind(name)
        for listener in (by_file, by_name):
            listener.listen()
        inside = f"os.chdir({str(runs.data_dir)!r}) or {call.format('import.socket')}"
        assert tried(runs, inside).startswith(NOT_THERE)
        assert tried(runs, call.format(name)).startswith("ConnectionRefusedError")
        assert tried(runs, "os.listdir('/run')") == "[]"
        assert not has_called(by_file)
        assert not has_called(by_name)
    os.close(int(short.split("/")[4]))


@pytest.mark.parametrize("shared", ["/tmp", "/var/tmp"])
def test_where_all_leave_things_a_model_finds_none_of_them(runs: ModelRuns, shared: str) -> None:
    with tempfile.TemporaryDirectory(dir=shared) as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        call = f"socket.socket(socket.AF_UNIX).connect('{folder}/socket')"
        assert tried(runs, call).startswith(NOT_THERE)
        assert not has_called(listener)


def test_a_model_that_may_use_the_network_can_and_is_confined_otherwise(runs: ModelRuns) -> None:
    with listening() as (listener, port):
        assert tried(runs, calling(port), allow_network=True) == "None"
        assert has_called(listener)
    archived = str(runs.data_dir / "archive" / "image.dcm")
    assert tried(runs, f"open({archived!r})", allow_network=True).startswith(NOT_THERE)
    assert tried(runs, "open('/new', 'w')", allow_network=True) == READ_ONLY


# --- processes ---------------------------------------------------------------


def test_a_model_signals_nobody_but_its_own(runs: ModelRuns) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        for process in (os.getpid(), bystander.pid, -1):
            assert tried(runs, f"os.kill({process}, 0)").startswith("ProcessLookupError")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_it_is_in_the_session_of_the_node_but_not_in_its_group(runs: ModelRuns) -> None:
    # Of processes outside, what a model asks for are no numbers.
    assert runs.told("import os; said = str(os.getsid(0))") == "0"
    assert {os.getsid(process) for process in runs.processes()} == {os.getsid(0)}
    assert os.getpgid(0) not in {os.getpgid(process) for process in runs.processes()}


def test_a_terminal_of_the_node_is_not_the_model_s(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = (
        "import os\nfrom node.processes import confinement\n"
        "if child := os.fork(): raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "os.setpgid(0, 0)\n"
        "os.close(os.open('/dev/tty', os.O_RDWR))\n"
        "confinement.leave_terminal()\n"
        "try: os.open('/dev/tty', os.O_RDWR)\n"
        f"except OSError as error: open({str(said)!r}, 'w').write(error.strerror)\n"
    )
    in_a_terminal = f"import pty, sys; sys.exit(pty.spawn([sys.executable, '-c', {script!r}]))"
    subprocess.run([sys.executable, "-c", in_a_terminal], cwd=ROOT, check=True, capture_output=True)
    assert said.read_text() == os.strerror(errno.ENXIO)


def test_a_model_cannot_say_in_the_place_of_others_how_it_ended(runs: ModelRuns) -> None:
    for number in (0, 1, 2):
        assert tried(runs, f"os.open('/proc/1/fd/{number}', os.O_WRONLY)").startswith("PermissionError")
    assert tried(runs, "os.listdir('/proc/self/fd') != []") == "True"


def test_a_daemon_that_a_model_leaves_is_gone_with_the_run(runs: ModelRuns) -> None:
    first = runs.told(f"{DAEMON}\nsaid = model.name")
    assert runs.processes() == []
    assert runs.told("said = model.name") != first


def test_a_daemon_is_gone_with_a_crash(runs: ModelRuns) -> None:
    with pytest.raises(ModelCrashed, match="ZeroDivisionError"):
        runs.told(f"{DAEMON}\n1 / 0")
    assert runs.processes() == []


def test_the_environment_holds_nothing_of_the_node(runs: ModelRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://name:word@proxy")
    monkeypatch.setenv("DATABASE_PASSWORD", "word")
    names = runs.told("import os; said = ' '.join(os.environ)", device="cpu").split()
    assert not {"HTTPS_PROXY", "DATABASE_PASSWORD"} & set(names)
    assert {"PATH", "HOME", "TMPDIR", "PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"} <= set(names)


# --- where the system permits less -------------------------------------------


@pytest.fixture
def unpermitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "why_unconfinable", lambda: "refused")


@pytest.mark.usefixtures("unpermitted")
def test_a_model_that_cannot_be_shut_in_does_not_run(runs: ModelRuns) -> None:
    with pytest.raises(ModelNotConfined, match="told was not run: this system permits not the") as raised:
        runs.told("open('/ran', 'w')")
    assert "allow_network = true" in raised.value.action


@pytest.mark.usefixtures("unpermitted")
def test_one_that_may_use_the_network_runs_all_the_same_and_the_log_says_so(
    runs: ModelRuns, caplog: pytest.LogCaptureFixture
) -> None:
    first = runs.told("said = model.name", allow_network=True)
    assert runs.told("said = model.name", allow_network=True) == first
    assert runs.told("said = open('/proc/self/status').read()", allow_network=True).count("NoNewPrivs:\t1")
    assert [one.message for one in caplog.records].count("model runs without being shut in") == 1


@pytest.mark.usefixtures("unpermitted")
@pytest.mark.parametrize("ending", ["", "1 / 0", "os._exit(1)", "os.kill(os.getppid(), 9)"])
def test_a_daemon_is_gone_even_there(runs: ModelRuns, tmp_path: Path, ending: str) -> None:
    mark = tmp_path / "daemon"
    code = f"import os\nmodel.mark = {str(mark)!r}\n{DAEMON}"
    waiting = "while not os.path.exists(model.mark): time.sleep(0.01)"
    with suppress(ModelCrashed):
        runs.told(f"{code}\n{waiting}\n{ending}", allow_network=True)
    assert mark.exists()
    assert runs.processes() == []


def test_a_system_that_refuses_at_the_last_moment_is_named(
    runs: ModelRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.processes import model_process

    def cell(*_: object) -> dict[str, list[str]]:
        return {"hidden": [], "readable": ["/no such folder"], "writable": ["/tmp"]}

    monkeypatch.setattr(model_process, "_cell", cell)
    with pytest.raises(ModelNotConfined, match=r"could not be confined: .*opening /no such folder"):
        runs.run("brightness")
