"""The host has the three arrays carry out commands, by each method, through nothing but LUNs of the first."""

from __future__ import annotations

import json
from typing import Any

import yaml

from scripts.demonstration.story import DemoError, Story
from tests.lab.three import NAMES

TEXT = "hello"
METHODS = (
    (
        "A command to each array, through its command device: the first's own, the others' by virtual volumes",
        ("--method", "command-device"),
    ),
    (
        "The same, addressed: the message goes along the path, and each array deletes its own address",
        ("--method", "addressed"),
    ),
    ("Addressed, and the addresses are kept: each array finds its place in the list", ("--keep-addresses",)),
    ("Addressed, to the farthest array that each is connected with", ("--shortest",)),
)
"""What is said of each method, and arrayctl's options for it."""
ADDRESSED = ("--method", "addressed")


def commands(story: Story) -> None:
    """Raises DemoError when an answer is not what it must be."""
    story.step("The host's path table says how each array is reached")
    paths, many = story.folder / "hosts.yaml", story.folder / "many.yaml"
    paths.write_text(yaml.safe_dump(story.arrays.paths(), sort_keys=False, width=120))
    story.show_file(paths)
    story.export("ARRAYCTL_PATHS", str(paths))
    for title, options in METHODS:
        story.step(title)
        addressed = options if "command-device" in options else (*dict.fromkeys((*ADDRESSED, *options)),)
        told = story.run_together(
            [(story.arrayctl, "send", *addressed, name, "echo", f"text={TEXT}") for name in NAMES]
        )
        for name, said in zip(NAMES, told, strict=True):
            expect(said, {"array": name, "text": TEXT})
    story.step("One message with a command for each array behind the first, carried out in their order")
    listed = [{"array": name, "command": "echo", "input": {"text": TEXT}} for name in NAMES[1:]]
    many.write_text("".join(f"- {json.dumps(each)}\n" for each in listed))
    story.show_file(many)
    answers = json.loads(story.run(story.arrayctl, "send-many", str(many)))
    expect(
        json.dumps([(each["array"], each["result"], each["edited"]) for each in answers]),
        [[name, 0, {"array": name, "text": TEXT}] for name in NAMES[1:]],
    )
    story.step("How all three are, asked through the first")
    story.run(story.arrayctl, "status")


def expect(said: str, answer: Any) -> None:
    """Raises DemoError unless that was said, as JSON."""
    if json.loads(said) != answer:
        raise DemoError("the answer to the command is not right")
