"""How fast disks, memory and network are: measured for a while, so on one kind of cluster only."""


def test_the_cluster_measures_its_hardware(client):
    hardware = client.benchmark_hardware()
    assert set(hardware) == {"disk", "memory", "network"}
    for sizes in hardware.values():
        assert sizes and all(speed > 0 for speed in sizes.values())
    assert "1 MiB" in hardware["disk"] and "10 kiB" in hardware["memory"] and "50 MiB" in hardware["network"]
