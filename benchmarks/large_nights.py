"""The nights on which a large file has changed: time, bytes written, deltas, memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import large
from ground import Ground, Grounds, require_equal
from large import MIB
from log import Log, Run, say
from measure import Command, Failed, run
from nights import SETTLE_S
from peers import IMAGE, Rsync, Tool

IMAGE_FILE = "disk.img"
WRITTEN_TIMES = 3  # the changed bytes may be written so often, and
WRITTEN_MORE = 16 * MIB  # beyond that
WRITTEN_OF_RSYNC = 0.1
DELTA_TIMES = 1.2  # the changed bytes, in the delta of an image
DELTA_PERCENT = {"mailbox": 2.0, "database": 4.0}  # of the file


# --- a night of an image ------------------------------------------------------------------------


def image(grounds: Grounds) -> None:
    """A virtual machine's image of which a hundredth has changed, by all tools in turn."""
    log = grounds.log
    with grounds.ground(IMAGE) as ground:
        file = ground.source / IMAGE_FILE
        say(f"making an image of {grounds.sizes.image:,} bytes")
        large.random_file(file, grounds.sizes.image, 1)
        peers = [peer for peer in ground.peers if _ready(log, peer)]
        _first(ground.mirrorback)
        changed, deltas = 0, []
        for number in range(grounds.rounds):
            changed = large.change_pages(file, f"night {number}")
            time.sleep(SETTLE_S)
            _night(log, ground.mirrorback, number)
            newest = ground.mirrorback.snapshots(ground.mirrorback.place)[-1]
            deltas.append(ground.delta(IMAGE_FILE, newest) / changed)
            for peer in peers:
                if peer.label not in log.failed:
                    _peers_night(log, peer, number)
        _written(log, ground, changed)
        log.figure(IMAGE, "delta", deltas, DELTA_TIMES, "x changed")


def _first(tool: Tool) -> None:
    for command in tool.prepare():
        run(command)
    run(tool.backup(0))


def _ready(log: Log, peer: Tool) -> bool:
    """Let a peer make its first backup; whether it has."""
    if not peer.installed or IMAGE not in peer.nights or peer.label in log.failed:
        return False
    try:
        _first(peer)
    except Failed as error:
        say(str(error))
        log.failed[peer.label] = IMAGE
        return False
    return True


def _night(log: Log, tool: Tool, number: int) -> None:
    command = tool.backup(number + 1)
    log.run(IMAGE, tool.label, command, number, tool.kind, after=[log.drive])


def _peers_night(log: Log, peer: Tool, number: int) -> None:
    try:
        _night(log, peer, number)
        peer.tidy(number + 1)
    except Failed as error:
        say(str(error))
        log.failed[peer.label] = IMAGE


def _written(log: Log, ground: Ground, changed: int) -> None:
    """What the drive wrote: in itself, and beside each rsync."""
    ours = _bytes(log, ground.mirrorback)
    if not ours:
        say("the drive is no file system of its own: what it writes is not known")
        return
    limit = WRITTEN_TIMES * changed + WRITTEN_MORE
    log.figure(IMAGE, "written", [count / MIB for count in ours], limit / MIB, "MiB")
    for peer in ground.peers:
        theirs = _bytes(log, peer)
        if isinstance(peer, Rsync) and len(theirs) == len(ours):
            ratios = [one / max(other, 1) for one, other in zip(ours, theirs, strict=True)]
            log.figure(IMAGE, "written", ratios, WRITTEN_OF_RSYNC, f"x {peer.label}")


def _bytes(log: Log, tool: Tool) -> list[int]:
    runs = [one for one in log.runs if (one.night, one.label) == (IMAGE, tool.label)]
    return [one.written for one in runs if one.written is not None]


# --- deltas -------------------------------------------------------------------------------------


def mailbox(grounds: Grounds) -> None:
    """A mailbox with something put in front, a message gone, and new ones at the end."""
    _delta(grounds, "mailbox", grounds.sizes.mailbox)


def database(grounds: Grounds) -> None:
    """An SQLite database with a hundredth of its rows updated."""
    _delta(grounds, "database", grounds.sizes.database)


def _delta(grounds: Grounds, night: str, size: int) -> None:
    """The size of the delta is the same every time: one round."""
    log = grounds.log
    with grounds.ground(night) as ground:
        file, new = ground.source / night, ground.work / night
        say(f"making a {night} of {size:,} bytes")
        large.make(night, file, new, size)
        old = shutil.copyfile(file, ground.work / "old")
        _first(ground.mirrorback)
        shutil.copyfile(new, file)
        time.sleep(SETTLE_S)
        log.run(night, "mirrorback", ground.mirrorback.backup(1), 0, after=[log.drive])
        snapshot = ground.mirrorback.snapshots(ground.mirrorback.place)[-1]
        percent = ground.delta(night, snapshot) / old.stat().st_size * 100
        target = ground.work / "restored"
        run(ground.mirrorback.restore(snapshot, target))
        require_equal(target / night, old)
        log.figure(night, "delta", [percent], DELTA_PERCENT[night], "% of file")


# --- memory -------------------------------------------------------------------------------------


def memory(grounds: Grounds) -> None:
    """A very large file's nights, the removal of a middle snapshot, restoring, verifying; it
    is the memory that matters, and once is enough."""
    with grounds.ground("memory") as ground:
        file = ground.source / IMAGE_FILE
        say(f"making a file of {grounds.sizes.huge:,} bytes")
        large.random_file(file, grounds.sizes.huge, 1)
        digest = _digest(file)
        backup = ground.mirrorback.backup
        _step(grounds, "first", backup(0))
        large.change_pages(file, "one")
        time.sleep(SETTLE_S)
        _step(grounds, "pages", backup(1))
        _insert(file, ground.work / "new")
        time.sleep(SETTLE_S)
        _step(grounds, "insertion", backup(2))
        large.change_pages(file, "two")
        time.sleep(SETTLE_S)
        _step(grounds, "pages again", backup(3))
        _history(grounds, ground, digest)


def _history(grounds: Grounds, ground: Ground, digest: str) -> None:
    """With the snapshots there are; `digest` is that of the oldest file."""
    command, place = ground.mirrorback.command, ground.mirrorback.place
    oldest, middle, _ = ground.mirrorback.snapshots(place)
    _step(grounds, "delete", command("delete", str(place), middle, "-q"))
    ground.delta(IMAGE_FILE, oldest)
    target = ground.work / "restored"
    _step(grounds, "restore", ground.mirrorback.restore(oldest, target))
    if _digest(target / IMAGE_FILE) != digest:
        raise Failed("what was restored is not what it was")
    _step(grounds, "verify", command("verify", str(place), "-q"))


def _step(grounds: Grounds, name: str, command: Command) -> Run:
    log = grounds.log
    return log.run(f"large: {name}", "mirrorback", command, 0, after=[log.drive, log.work])


def _insert(file: Path, new: Path) -> None:
    """Put 1 MiB in front of a file; it is replaced."""
    large.random_file(new, MIB, 2)
    with file.open("rb") as source, new.open("ab") as target:
        shutil.copyfileobj(source, target, MIB)
    os.replace(new, file)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()
