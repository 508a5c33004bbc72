"""config/: three arrays in a row and a host's path table, right by themselves and together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from arrayd.host import PathTable
from tests.lab.checking import check
from tests.lab.daemon import CHECKOUT
from tests.lab.three import CONFIG, DEVICE_LUN, DEVICE_LUN_OF, NAMES, VOLUME_LUN_OF, configuration_of


@pytest.mark.parametrize("name", NAMES)
def test_arrayd_check_finds_no_mistake(name: str) -> None:
    done = check(CONFIG / f"{name}.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].endswith(f"{name}.yaml: ok")


def where(configs: dict[str, dict[str, Any]], array: str, lun: int) -> tuple[str, dict[str, Any]]:
    """The array at the end of a LUN, and what is there."""
    row = configs[array]["luns"][str(lun)]
    if "virtual" not in row:
        return array, row
    to = row["virtual"]
    assert to["array"] in configs[array]["link"]["arrays"]
    return where(configs, to["array"], to["lun"])


def test_the_arrays_go_together() -> None:
    configs = {name: configuration_of(name) for name in NAMES}
    for key in ("serial", "name"):
        assert len({config["array"][key] for config in configs.values()}) == len(NAMES)
    listens = [at for config in configs.values() for at in (*config["iscsi"]["listen"], config["link"]["listen"])]
    assert len(set(listens)) == len(listens)
    for name, config in configs.items():
        for other, address in config["link"]["arrays"].items():
            assert address in (None, configs[other]["link"]["listen"])
            assert (address is None) == (configs[other]["link"]["arrays"][name] is not None)  # one of them dials
        for array, lun in config.get("commands", {}).get("devices", {}).items():
            assert where(configs, name, lun) == (array, {"command_device": {}})
    for name in NAMES:
        assert where(configs, "primary", DEVICE_LUN_OF[name]) == (name, {"command_device": {}})
        assert where(configs, "primary", VOLUME_LUN_OF[name]) == (name, {"volume": "data"})


def test_the_path_table_fits_the_arrays() -> None:
    table = PathTable.load(CONFIG / "hosts.yaml")
    assert tuple(table.rows) == NAMES
    primary = configuration_of("primary")
    portal, target = primary["iscsi"]["listen"][0], primary["iscsi"]["target"]
    assert str(table.rows["primary"].direct) == f"iscsi://{portal}/{target}/{DEVICE_LUN}"
    assert table.route("intermediate").lun == DEVICE_LUN_OF["intermediate"]
    assert (table.route("remote").asked, table.route("remote").addresses) == ("primary", ("intermediate", "remote"))


def test_they_are_named_where_they_are_explained() -> None:
    page = (CHECKOUT / "docs" / "connect-linux.md").read_text()
    for name in (*NAMES, "hosts"):
        assert f"(../config/{name}.yaml)" in page
        text = (Path(CONFIG) / f"{name}.yaml").read_text()
        assert yaml.safe_load(text)
