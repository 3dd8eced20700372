"""The configuration file: every key, every mistake with its line, all of them at once."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from k3swatch import config
from k3swatch.config import ListenAddress
from k3swatch.errors import ConfigError
from k3swatch.k3s.ports import NAMES
from k3swatch.model.port import LOCAL, Allow, Listener, ProtectedPort
from k3swatch.model.words import Protocol

FULL = """\
ports:
  - name: k3s-api
    port: 6443
    protocol: tcp
    addresses: [local, 192.0.2.0/24, "2001:db8::1"]
    listener: {exe: [/usr/local/bin/k3s], unit: k3s.service}
    allow:
      - {destination: 10.42.0.0/16, pod: kube-system/svclb-*, comment: "*cbr0*"}
      - destination: 192.0.2.7
    severity: warning
  - port: 8472
    protocol: udp
metrics: {listen: ["127.0.0.1:9", "[::1]:10"], tls: {cert_file: /c.pem, key_file: /k.pem}}
alertmanager: {urls: ["http://127.0.0.1:9093/", "https://am.example/base"]}
journal: {enabled: false}
state: {path: /var/lib/other}
control: {socket: /run/other.sock}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "f")
    return caught.value.problems


def test_no_file_protects_the_api_port() -> None:
    ports = config.load(None).ports
    assert [(port.spec, port.addresses) for port in ports] == [("tcp/6443", (LOCAL,))]


def test_every_key_arrives() -> None:
    got = config.parse(FULL)
    assert got.ports == (
        ProtectedPort(
            name="k3s-api",
            port=6443,
            addresses=(LOCAL, ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")),
            listener=Listener(("/usr/local/bin/k3s",), "k3s.service"),
            allow=(
                Allow(ip_network("10.42.0.0/16"), "kube-system/svclb-*", "*cbr0*"),
                Allow(ip_network("192.0.2.7/32")),
            ),
            severity="warning",
        ),
        ProtectedPort(name="udp-8472", port=8472, protocol=Protocol.UDP),
    )
    assert got.metrics.listen == (ListenAddress("127.0.0.1", 9), ListenAddress("::1", 10))
    assert [str(address) for address in got.metrics.listen] == ["127.0.0.1:9", "[::1]:10"]
    assert got.metrics.tls == config.Tls("/c.pem", "/k.pem")
    assert got.alertmanager.urls == ("http://127.0.0.1:9093", "https://am.example/base")
    assert not got.journal.enabled
    assert got.state.path == "/var/lib/other"
    assert got.control.socket == "/run/other.sock"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}"])
def test_an_empty_file_is_the_defaults(text: str) -> None:
    assert config.parse(text, "f").ports == config.load(None).ports


def test_the_shipped_file_says_the_defaults(repo: Path) -> None:
    path = str(repo / "packaging" / "config.yaml")
    shipped, default = config.load(path), config.load(None)
    assert shipped.path == path
    for section in ("ports", "metrics", "alertmanager", "journal", "state", "control", "k3s"):
        assert getattr(shipped, section) == getattr(default, section), section


@pytest.mark.parametrize(
    ("text", "auto", "only"),
    [
        ("{}", True, ()),
        ("k3s: auto", True, ()),
        ("k3s: off", False, ()),
        ('k3s: "off"', False, ()),
        ("k3s: [kubelet, k3s-api]", True, ("kubelet", "k3s-api")),
        ("ports: [{port: 22}]", False, ()),
        ("ports: [{port: 22}]\nk3s: auto", True, ()),
    ],
)
def test_k3s(text: str, auto: bool, only: tuple[str, ...]) -> None:
    assert config.parse(text).k3s == config.K3s(auto, only)


CASES = {
    "unknown key": ("pots: []", ["f:1: pots: unknown key, did you mean 'ports'?"]),
    "unknown key, nothing near": (
        "zzz: 1",
        ["f:1: zzz: unknown key, known are: ports, metrics, alertmanager, journal, state, control, k3s"],
    ),
    "unknown key below": (
        "ports:\n  - port: 1\n    adresses: [local]",
        ["f:3: ports[0].adresses: unknown key, did you mean 'addresses'?"],
    ),
    "not a mapping": ("[1]", ["f:1: want a mapping, not a list"]),
    "k3s": ("k3s: sometimes", ["f:1: k3s: want one of auto, off"]),
    "k3s list": ("k3s: [api]", [f"f:1: k3s[0]: want one of {', '.join(NAMES)}"]),
    "k3s nothing": ("k3s: []", ["f:1: k3s: no port; write `off` for none"]),
    "ports not a list": ("ports:", ["f:1: ports: want a list, not nothing"]),
    "no port at all": (
        "ports: []",
        ["f:1: ports: nothing to protect; leave `ports` out to protect tcp/6443"],
    ),
    "port missing": ("ports: [{name: a}]", ["f:1: ports[0]: `port` is missing"]),
    "port 0": ("ports: [{port: 0}]", ["f:1: ports[0].port: 0 is not in 1..65535"]),
    "port 65536": ("ports: [{port: 65536}]", ["f:1: ports[0].port: 65536 is not in 1..65535"]),
    "port as text": ('ports: [{port: "6443"}]', ["f:1: ports[0].port: want a whole number, not text"]),
    "port as bool": ("ports: [{port: yes}]", ["f:1: ports[0].port: want a whole number, not true or false"]),
    "port of 5000 digits": (
        f"ports: [{{port: 1{'0' * 5000}}}]",
        ["f:1: ports[0].port: want a whole number, not text"],
    ),
    "protocol": (
        "ports: [{port: 1, protocol: sctp}]",
        ["f:1: ports[0].protocol: want one of tcp, udp"],
    ),
    "duplicate name": (
        "ports:\n - {name: a, port: 1}\n - {name: a, port: 2}",
        ["f:3: ports[1]: name a was already used in line 2"],
    ),
    "duplicate port": (
        "ports:\n - {name: a, port: 1}\n - {name: b, port: 1}",
        ["f:3: ports[1]: port tcp/1 was already used in line 2; list all its addresses in one entry"],
    ),
    "bad name": (
        'ports: [{name: "a b", port: 1}]',
        ["f:1: ports[0].name: want at most 63 letters, digits, '.', '_' or '-'"],
    ),
    "address": (
        "ports: [{port: 1, addresses: [localhost]}]",
        ["f:1: ports[0].addresses[0]: localhost is neither an address nor a CIDR"],
    ),
    "host bits": (
        "ports: [{port: 1, addresses: [10.0.0.1/8]}]",
        ["f:1: ports[0].addresses[0]: 10.0.0.1/8 has host bits set, did you mean 10.0.0.0/8?"],
    ),
    "no address": (
        "ports: [{port: 1, addresses: []}]",
        [
            "f:1: ports[0].addresses: no address; leave `addresses` out to protect every address of this host",
        ],
    ),
    "allows everything": (
        "ports: [{port: 1, allow: [{}]}]",
        [
            "f:1: ports[0].allow[0]: empty: would allow every diversion; give destination, pod, comment or program",
        ],
    ),
    "pod glob": (
        "ports: [{port: 1, allow: [{pod: svclb}]}]",
        ["f:1: ports[0].allow[0].pod: svclb: want NAMESPACE/NAME, where NAME may have * and ?"],
    ),
    "relative exe": (
        "ports: [{port: 1, listener: {exe: [k3s]}}]",
        ["f:1: ports[0].listener.exe[0]: k3s is not an absolute path"],
    ),
    "listen without port": (
        'metrics: {listen: ["127.0.0.1"]}',
        ["f:1: metrics.listen[0]: 127.0.0.1: want ADDRESS:PORT, as in 127.0.0.1:10643 or [::1]:10643"],
    ),
    "listen on a name": (
        'metrics: {listen: ["localhost:1"]}',
        ["f:1: metrics.listen[0]: localhost is not an address; use 0.0.0.0 or [::] for all"],
    ),
    "listen without brackets": (
        'metrics: {listen: ["::1:99"]}',
        [
            "f:1: metrics.listen[0]: ::1:99: IPv6 addresses, and only those, go in brackets: [::1]:10643",
        ],
    ),
    "half of TLS": (
        "metrics: {tls: {cert_file: /c}}",
        ["f:1: metrics.tls: `key_file` is missing"],
    ),
    "url": (
        "alertmanager: {urls: [ftp://x]}",
        [
            "f:1: alertmanager.urls[0]: ftp://x: want http://HOST[:PORT] or https://HOST[:PORT]",
        ],
    ),
    "url with query": (
        "alertmanager: {urls: ['http://x?a=b']}",
        ["f:1: alertmanager.urls[0]: http://x?a=b: want only scheme, host, port and path"],
    ),
    "journal": ("journal: {enabled: 1}", ["f:1: journal.enabled: want true or false, not a number"]),
    "relative state": ("state: {path: lib}", ["f:1: state.path: lib is not an absolute path"]),
    "long socket": (
        f"control: {{socket: /{'x' * 107}}}",
        ["f:1: control.socket: longer than 107 bytes, the most a Unix socket can be named"],
    ),
    "control characters": (
        'state: {path: "/a\\x1b[2J"}',
        ["f:1: state.path: must not contain control characters"],
    ),
    "repeated key": (
        "journal: {enabled: true}\njournal: {enabled: false}",
        ["f:2: journal: given twice, first in line 1"],
    ),
    "alias": ("a: &x 1\nb: *x", ["f:1: anchors and aliases are not supported"]),
    "too deep": ("[" * 50 + "]" * 50, ["f:1: nested deeper than 16"]),
    "syntax": ("ports: [", ["f:1: expected the node content, but found '<stream end>'"]),
    "two documents": ("{}\n---\n{}", ["f:2: but found another document"]),
    "python object": (
        "a: !!python/object/apply:os.system [x]",
        ["f:1: a: unknown key, known are: ports, metrics, alertmanager, journal, state, control, k3s"],
    ),
    "NUL": ("{}\n\0", ["f:2: a character YAML does not allow"]),
    "a key that is a list": ("? [a]\n: b", ["f:1: a key must be a word"]),
}


@pytest.mark.parametrize("case", CASES)
def test_one_mistake(case: str) -> None:
    text, expected = CASES[case]
    assert problems(text) == expected


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = "ports:\n  - port: 0\n    severty: high\nstate: 3\njournal: {enabled: no}\njournal: {}\n"
    assert problems(text) == [
        "f:2: ports[0].port: 0 is not in 1..65535",
        "f:3: ports[0].severty: unknown key, did you mean 'severity'?",
        "f:4: state: want a mapping, not a number",
        "f:6: journal: given twice, first in line 5",
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(str(tmp_path / "absent.yaml"))


def test_a_file_that_is_too_big(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="bigger than"):
        config.load(str(path))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"ports:\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml:2: not UTF-8"):
        config.load(str(path))


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        config.load(str(tmp_path))
