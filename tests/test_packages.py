"""scripts/packages.txt, the one list of Debian packages, names all that the tests ask for."""

from pathlib import Path

from tests.lab.parts import PACKAGE_OF

LIST = Path(__file__).parent.parent / "scripts" / "packages.txt"
OF_EVERY_DEBIAN = {"apt", "dpkg", "libc-bin", "mount"}
PURPOSES = {"demo", "test", "bench"}


def listed() -> dict[str, set[str]]:
    """Package to what it is for."""
    rows = [line.partition("#")[0].split() for line in LIST.read_text().splitlines()]
    return {package: set(purposes.split(",")) for package, purposes in (row for row in rows if row)}


def test_every_row_has_a_purpose_we_know() -> None:
    assert [package for package, purposes in listed().items() if not purposes <= PURPOSES] == []


def test_what_the_lab_needs_is_listed() -> None:
    for_tests = {package for package, purposes in listed().items() if "test" in purposes}
    assert set(PACKAGE_OF.values()) - OF_EVERY_DEBIAN <= for_tests
