"""Network namespaces: machines with a network of their own, whose cable can be pulled. Needs root and `ip`."""

import os
import shutil
import subprocess


def ip(*arguments):
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True)


class Network:
    """A bridge with one namespace a slot. What is sent through a pulled cable is lost, and neither end is told."""

    def __init__(self, slots):
        # Of this process alone, so that two networks at a time do not meet; the range is for tests (RFC 2544).
        number = os.getpid()
        self.name = f"dt{number}"
        self.prefix = f"198.{18 + number % 2}.{number // 2 % 256}"
        self.made = []
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", f"{self.prefix}.1/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        for slot in range(slots):
            self._add(slot)

    def _add(self, slot):
        name = f"{self.name}n{slot}"
        ip("netns", "add", name)
        self.made.append(name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", self.name, "up")
        ip("-n", name, "addr", "add", f"{self.host(slot)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")

    @property
    def gateway(self):
        """Where this machine is to be found from the others."""
        return f"{self.prefix}.1"

    def host(self, slot):
        return f"{self.prefix}.{slot + 2}"

    def command(self, slot):
        """What goes before a command that is to run there."""
        return ["ip", "netns", "exec", f"{self.name}n{slot}"]

    def pull(self, slot):
        ip("link", "set", f"{self.name}n{slot}", "nomaster", "down")

    def plug_in(self, slot):
        ip("link", "set", f"{self.name}n{slot}", "master", self.name, "up")

    def close(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", self.name], check=False)


def network(slots):
    """A network, or none where one cannot be made."""
    if shutil.which("ip") is None:
        return None
    try:
        return Network(slots)
    except subprocess.CalledProcessError:
        return None
