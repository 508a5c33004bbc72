"""Commands from a Linux host with a stock kernel, on disks and sg nodes of its initiator: the shell of docs/dd.md as it
stands, and arrayctl; by the command device of the array that it is connected to, and of arrays behind that one."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from arrayd.commands.results import Result
from tests.lab.daemon import CHECKOUT
from tests.lab.guest import WORK, on_machine
from tests.lab.machine import Machine
from tests.lab.openiscsi import Initiator
from tests.lab.three import DEVICE_LUN_OF, VOLUME_LUN_OF, ThreeArrays

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

PAGE = CHECKOUT / "docs" / "dd.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISING = re.compile(r"^(?P<command>\S.*?)\s+# (?P<promise>.*)$")
"""A line of a block, not indented, with a comment: that is what it prints."""
NO_PROMISE = ("}", "bytes()", "request()", "sg_raw")
"""How lines begin whose comments say something else."""
MARK = "@@"
PYTHON_TIMEOUT_S = 150.0
"""An emulated processor takes seconds to import what arrayctl needs."""

SHELLS: dict[str, Callable[[str], str]] = {
    "busybox": lambda script: f"cd {WORK} && sh -c {shlex.quote(script)}",
    "dash": lambda script: on_machine(script, "/bin/dash"),
    "bash": lambda script: on_machine(script, "/bin/bash"),
}
"""How each shell runs a script: busybox is the guest's own; dash and bash come with Debian's coreutils."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeArrays]:
    """The arrays of config/."""
    with ExitStack() as stack:
        arrays = ThreeArrays(tmp_path_factory.mktemp("three"))
        arrays.run(stack)
        yield arrays


@pytest.fixture(scope="module")
def initiator(three: ThreeArrays, machine: Machine) -> Iterator[Initiator]:
    """Logged in to the first array by the guest, and every LUN is there; it lets go before the arrays stop. All these
    tests use the same: for an emulated processor six disks are half a minute of work."""
    initiator = Initiator(machine.guest(), three["primary"].target, [three["primary"].port])
    try:
        initiator.login()
        yield initiator
        initiator.logout()
    finally:
        machine.put_in_order()


@pytest.fixture(autouse=True)
def _folder_of_its_own(initiator: Initiator) -> None:
    """An empty one, to work in."""
    initiator.guest.check(f"rm -rf {WORK}; mkdir {WORK}")


def promises(array: str, behind: str) -> dict[str, Callable[[str, Mapping[str, str]], bool]]:
    """By the comment of a line: whether what it printed is that. `behind`: whom the page's last command goes to."""

    def is_identification(printed: str, variables: Mapping[str, str]) -> bool:
        return printed.split() == re.findall("..", f"{variables['HOST']}{variables['EPOCH']}{1:016x}")

    def is_answer_of(name: str) -> Callable[[str, Mapping[str, str]], bool]:
        return lambda printed, _: json.loads(printed) == {"array": name, "text": "hello"}

    return {
        "arrayd command device": lambda printed, _: printed == "arrayd command device",
        "the array's name": lambda printed, _: printed == array,
        "one for each slot": lambda printed, _: len(printed.split()) == 64 and set(printed.split()) <= {"0", "3"},
        "your identification number, if it is your answer": is_identification,
        "1: it still runs, read again; 2: it has ended": lambda printed, _: printed.strip() == "2",
        "0 0: it went well; else the result, as in formats.md": lambda printed, _: printed.split() == ["0", "0"],
        '{"array":"primary","text":"hello"}': is_answer_of(array),
        '{"commands":[{"number": and so on': lambda printed, _: printed.startswith('{"commands":[{"number":'),
        "1: it is on its way, read again; 2: it has ended": lambda printed, _: printed.strip() == "2",
        '{"array":"intermediate","text":"hello"}': is_answer_of(behind),
    }


def page_script(device: str, generic: str) -> str:
    """All blocks of the page, one after another; around the lines that promise something there are marks."""
    lines = ["set -eu", f"DEV={device}", f"SG={generic}"]
    for block in BLOCK.findall(PAGE.read_text()):
        for line in block.splitlines():
            found = PROMISING.match(line)
            if found and not line.startswith(NO_PROMISE):
                line = f"echo; echo '{MARK}'{shlex.quote(found['promise'])}\n{line}\necho; echo '{MARK}'"
            lines.append(line)
    lines += [f"echo '{MARK}variables'; echo HOST=$HOST EPOCH=$EPOCH; echo '{MARK}'"]
    return "\n".join(lines)


def printed_by_line(output: str) -> dict[str, str]:
    """What the marked lines printed, by their comments; nothing else is printed."""
    printed: dict[str, str] = {}
    outside, *parts = re.split(rf"^{MARK}(.*)\n", output, flags=re.MULTILINE)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name:
            printed[name] = text.strip("\n")
        else:
            outside += text
    assert outside.strip() == "", outside
    return printed


def test_the_page_as_it_stands(initiator: Initiator) -> None:
    """By each shell; on the array's own command device, and on LUNs that lead to those of the arrays behind."""
    generic = initiator.generic(VOLUME_LUN_OF["primary"])
    for array, shell in (("primary", "busybox"), ("intermediate", "dash"), ("remote", "bash")):
        answer = initiator.guest.run(SHELLS[shell](page_script(initiator.disk(DEVICE_LUN_OF[array]), generic)))
        assert answer.status == 0, answer.output
        check_promises(answer.output, array)


def check_promises(output: str, array: str) -> None:
    printed = printed_by_line(output)
    variables = dict(pair.split("=") for pair in printed.pop("variables").split())
    expected = promises(array, "intermediate")
    assert printed.keys() == expected.keys()
    for promise, kept in expected.items():
        assert kept(printed[promise], variables), f"{promise}: {printed[promise]!r}"


FUNCTIONS = "bytes() {"
"""Where the block of the page begins that the two tests below take its functions from."""


def functions() -> str:
    """HOST, EPOCH, `bytes` and `request`, as the page has them."""
    blocks: list[str] = BLOCK.findall(PAGE.read_text())
    return next(block for block in blocks if FUNCTIONS in block)


def test_a_slot_in_use_is_refused_and_a_command_written_twice_is_executed_once(initiator: Initiator) -> None:
    """What the page says of slots and of identification numbers."""
    script = f"""set -eu
DEV={initiator.disk(DEVICE_LUN_OF["primary"])}
{functions()}
write() {{ dd if=request of=$DEV bs=4096 seek=$((64 * ($1 + 1))) conv=sync oflag=direct; }}
result() {{ dd if=$DEV bs=4096 skip=$((64 * ($1 + 1) + 16)) count=1 iflag=direct 2>/dev/null | od -An -tu1 -j8 -N2; }}
request 11 '{{"name":"made","size":1048576}}' >request
write 0 2>/dev/null                     # volume-create: its answer is not read yet
COUNT=2
request 2 '{{"text":"late"}}' >request
if write 0 2>refusal; then echo 'a slot in use was taken'; exit 1; fi
grep -oE '(Input/output|I/O) error' refusal
COUNT=1
request 11 '{{"name":"made","size":1048576}}' >request
write 3 2>/dev/null                     # the same again, into another slot
result 3
result 0
COUNT=3
request 11 '{{"name":"made","size":1048576}}' >request
write 4 2>/dev/null                     # another command that asks for the same volume
result 4
COUNT=4
request 2 "{{\\"text\\":\\"$(printf '%05000d' 0)\\"}}" >request
dd if=request of=$DEV bs=65536 seek=$((4 * (5 + 1))) conv=sync oflag=direct 2>/dev/null   # longer than a page
result 5    # it is not read to its end: the slot stays in use
"""
    answer = initiator.guest.run(SHELLS["dash"](script))
    assert answer.status == 0, answer.output
    refusal, *results = answer.output.split("\n")
    assert refusal.endswith("error")
    assert [line.split() for line in results if line] == [["0", "0"], ["0", "0"], ["0", "135"], ["0", "0"]]


# -- arrayctl ----------------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "command-device": {"method": "command-device"},
    "delete": {"method": "addressed"},
    "keep": {"method": "addressed", "addresses": "keep"},
    "shortest": {"method": "addressed", "addresses": "shortest"},
}
WAYS_BY_SG = {name: WAYS[name] for name in ("command-device", "delete")}
"""An sg node is read and written in another way: by one addressed command as by all of them."""
DRILL = """
import json, sys
from arrayd.host import Command, CommandFailed, Host, cli

for file, ways in json.loads(sys.argv[1]).items():
    with Host.load(file) as host:
        for name, way in ways.items():
            for array in ("primary", "intermediate", "remote"):
                print(name, array, json.dumps(host.by(**way).send(array, "echo", text=name)))
        for ended in host.send_many(
            [Command("intermediate", "echo", {"text": "one"}), Command("remote", "echo", {"text": "two"})]
        ):
            print("many", ended.array, json.dumps(ended.edited))
with Host.load("disk.yaml") as host, Host.load("volume.yaml") as other:
    long = "x" * 60_000
    for way in ("command-device", "addressed"):
        assert host.by(method=way).send("remote", "echo", text=long)["text"] == long
    host.send("remote", "volume-create", name="made", size="1MiB")
    host.send("remote", "volume-delete", name="made")
    try:
        host.send("remote", "volume-delete", name="made")
    except CommandFailed as failure:
        print("failed", failure.at, json.dumps(failure.name))
    print("volume", "primary", json.dumps(other.send("primary", "echo", text="any LUN")))
for words in (["status"], ["send", "remote", "nonsense"]):
    try:
        cli.main(["--paths", "disk.yaml", *words])
    except SystemExit as end:
        print("exit", words[0], end.code or 0, flush=True)
"""
"""What a host does with a command device, by its disk and by its sg node, and by a LUN that is a volume; then by the
command line, in the same process: an emulated processor takes long to start another."""


def test_arrayctl_on_devices_of_the_kernel(three: ThreeArrays, initiator: Initiator) -> None:
    """O_DIRECT and SG_IO; by the path table of config/, whose direct row is the device."""
    guest = initiator.guest
    for lun in DEVICE_LUN_OF.values():
        initiator.disk(lun)
    disk, generic = initiator.disk(DEVICE_LUN_OF["primary"]), initiator.generic(DEVICE_LUN_OF["primary"])
    volume = initiator.disk(VOLUME_LUN_OF["primary"])
    sum_of_volume = f"dd if={volume} bs=1M count=8 iflag=direct 2>/dev/null | md5sum"
    before = guest.check(sum_of_volume)
    tables = {
        "disk": three.paths(disk),
        "sg": three.paths(generic),
        "volume": {"paths": {"primary": {"direct": volume}}},
    }
    writing = "".join(
        f"cat >{name}.yaml <<'EOF'\n{yaml.safe_dump(table, sort_keys=False)}EOF\n" for name, table in tables.items()
    )
    python = f"{environment()} {CHECKOUT}/.venv/bin"
    drill = f"{python}/python drill.py {shlex.quote(json.dumps({'disk.yaml': WAYS, 'sg.yaml': WAYS_BY_SG}))}"
    answer = guest.run(on_machine(f"{writing}cat >drill.py <<'EOF'\n{DRILL}EOF\n{drill}"), PYTHON_TIMEOUT_S)
    assert answer.status == 0, answer.output
    sent = {"intermediate": "one", "remote": "two"}
    many = [("many", array, {"array": array, "text": text}) for array, text in sent.items()]
    by_kind: list[tuple[str, str, dict[str, str]]] = []
    for ways in (WAYS, WAYS_BY_SG):
        by_kind += [(way, array, {"array": array, "text": way}) for way in ways for array in three.arrays] + many
    others = [("failed", "remote", "NOT_FOUND"), ("volume", "primary", {"array": "primary", "text": "any LUN"})]
    lines = answer.output.splitlines()
    expected = [*by_kind, *others]
    said = [line.split(" ", 2) for line in lines[: len(expected)]]
    assert [(way, array, json.loads(edited)) for way, array, edited in said] == expected
    *rows, status_ended, reason, send_ended = lines[len(expected) :]
    assert [row.split("\t")[:2] for row in rows] == [[array, "normal"] for array in three.arrays]
    assert status_ended == "exit status 0"
    assert reason.startswith("arrayctl: remote: there is no command nonsense")
    assert send_ended == f"exit send {Result.UNKNOWN_COMMAND}"
    assert guest.check(sum_of_volume) == before


def environment() -> str:
    """What Python in the guest is told: where the checkout is, and what was compiled here."""
    return f"PYTHONPATH={CHECKOUT}" + (f" PYTHONPYCACHEPREFIX={sys.pycache_prefix}" if sys.pycache_prefix else "")
