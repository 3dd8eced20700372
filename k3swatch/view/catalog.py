"""Every kind of journal entry: its MESSAGE_ID, what it means, and what to do. One source for three readers.

`catalog()` is systemd/k3swatch.catalog (`journalctl -x`), `markdown()` is docs/journal.md, and the journald sink takes
the ids from here. `docs/generate` writes both files; a test compares them. An id never changes and is never reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from k3swatch.model.incident import Change, Notice, Transition
from k3swatch.model.words import State


class Kind(StrEnum):
    """Kinds of entries; the word is also the anchor in docs/journal.md."""

    DIVERTED = "port-diverted"
    BLOCKED = "port-blocked"
    UNKNOWN = "port-unknown"
    CONFIRMED = "confirmed"
    CHANGED = "changed"
    RESTORED = "restored"
    FLAPPING = "flapping"
    BLIND = "blind"
    SIGHTED = "sighted"
    LISTENER_CHANGED = "listener-changed"
    CONFIG_REJECTED = "configuration-rejected"
    CONFIG_LOADED = "configuration-loaded"
    STARTED = "started"
    STOPPED = "stopped"
    GUARDED = "guarded"
    SINK_FAILED = "sink-failed"
    SINK_RECOVERED = "sink-recovered"


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind: `subject` and `text` may name COPIED fields as @WATCH_FIELD@; lines of `text` stay as they are."""

    id: str
    subject: str
    text: str


_OPENED = {State.DIVERTED: Kind.DIVERTED, State.BLOCKED: Kind.BLOCKED}
_CHANGES = {
    Change.CONFIRMED: Kind.CONFIRMED,
    Change.CHANGED: Kind.CHANGED,
    Change.RESOLVED: Kind.RESTORED,
    Change.FLAPPING: Kind.FLAPPING,
}


def kind_of(transition: Transition) -> Kind:
    """The kind of entry a transition makes."""
    if transition.change is Change.OPENED:
        return _OPENED.get(transition.incident.state, Kind.UNKNOWN)
    return _CHANGES[transition.change]


def kind_of_notice(notice: Notice) -> Kind:
    """The kind of entry an event makes."""
    return Kind[notice.name]


ENTRIES: dict[Kind, Entry] = {
    Kind.DIVERTED: Entry(
        "25c58678aae1474eb3e50823e47061e8",
        "@WATCH_PORT@ is diverted to @WATCH_DESTINATION@",
        """\
A rule of this host's kernel sends connections to a protected port somewhere else, before they
reach the process that listens there. That process is fine, and `ss`, `lsof` and its own log
cannot show this: translation happens before a socket is looked for.

The usual causes: a Service of type LoadBalancer (K3s' ServiceLB) or with externalIPs on this
port; a pod with this hostPort; a published port of docker or podman; a rule added by hand.

Look:
    k3swatch explain @WATCH_PORT@
    nft -a list chain @WATCH_FAMILY@ @WATCH_TABLE@ @WATCH_CHAIN@

Reach the API all the same (usually works: kube-apiserver's own address, not the diverted one):
    export KUBECONFIG=/var/lib/rancher/k3s/server/cred/admin.kubeconfig    # https://127.0.0.1:6444

What to undo, in which order, with the commands for this very incident:
    k3swatch restore @WATCH_PORT@                   # --apply does what this host can do alone

Cure the cause, not the rule: kube-proxy and the CNI plugin put a deleted rule back.
    kubectl get services -A | grep LoadBalancer     # delete it, or give it another port
    kubectl get daemonsets -n kube-system           # svclb-* without a Service is an orphan: delete it
    k3swatch check                                  # says when it is over, or what is left

Do not:
    - iptables-save | iptables-restore: loses what nft rules say that iptables cannot
    - change https-listen-port: K3s' own kubeconfigs keep the old one and cleaning up stops working
    - nft flush ruleset: takes every pod's and Service's network down with it
    - systemctl restart k3s: leaves the rules where they are""",
    ),
    Kind.BLOCKED: Entry(
        "53e614b8a9c64d07b5382b325731404a",
        "@WATCH_PORT@ is blocked",
        """\
A rule of this host's kernel drops or rejects connections to a protected port.

The usual causes: a firewall (firewalld, ufw, a rule by hand) that was enabled or reloaded; a
network policy; a base chain whose policy is drop. "By neighbour": what asks for the host's address
(ICMPv6, ARP) is refused, so who does not remember it cannot connect, and soon that is everybody.

Look:
    k3swatch explain @WATCH_PORT@
    nft -a list chain @WATCH_FAMILY@ @WATCH_TABLE@ @WATCH_CHAIN@

Cure: allow the port where the rule comes from (firewall-cmd, ufw, the NetworkPolicy);
`k3swatch restore @WATCH_PORT@` has the command that lets it pass until then.
From this host https://127.0.0.1:6444 with /var/lib/rancher/k3s/server/cred/admin.kubeconfig
usually still works. Do not flush the ruleset: pods and Services live in it.""",
    ),
    Kind.UNKNOWN: Entry(
        "a4100a4379734f10a2004d272858172f",
        "It is unknown where connections to @WATCH_PORT@ go",
        """\
Something on the way to a protected port could not be read or is not understood, so nobody can
say that connections arrive. This is not "all is well"; the message says what it is.

The usual causes: k3swatch lost a privilege (CAP_NET_ADMIN); a rule uses a match or a target that
k3swatch does not know; two NAT chains with the same priority disagree.

Look:
    k3swatch explain @WATCH_PORT@
    curl -k https://127.0.0.1:6443/version          # does it answer at all, and with whose certificate

Cure: give the privilege back, or report the rule: `k3swatch snapshot -o FILE` holds all that is
needed to understand it.""",
    ),
    Kind.CONFIRMED: Entry(
        "9a9809358624443abe1e662baed4095a",
        "A real connection to @WATCH_PORT@ went to @WATCH_DESTINATION@",
        """\
What the rules predicted has happened: the kernel sent a connection to the diverted destination.
Clients are affected now, and whoever listens there sees what they send.

See the entry that opened incident @WATCH_INCIDENT@ for the cause and the cure:
    journalctl K3SWATCH_INCIDENT=@WATCH_INCIDENT@""",
    ),
    Kind.CHANGED: Entry(
        "b36660df3285447ca5fbbcbdcec8c9b1",
        "What happens to @WATCH_PORT@ has changed",
        """\
The same cause, but it holds for other addresses, from elsewhere, under other conditions, by
another path of rules, or it is more or less certain than before. Also said when it became known
which pod and Service take the connections (their files are written after the rule), when a second
cause takes over from the first, and when a flapping one has settled.

    journalctl K3SWATCH_INCIDENT=@WATCH_INCIDENT@""",
    ),
    Kind.RESTORED: Entry(
        "7de618b2e42e4fec94a0663d728dfe43",
        "A cause that took @WATCH_PORT@ is gone",
        """\
The rule is gone, or it does not apply any more. The message says what remains: another cause may
still hold the port. Connections that were opened meanwhile keep going where they went, because
the kernel translates a connection once: restart the clients, or
    conntrack -D -p tcp --orig-port-dst PORT

If it comes back within five minutes it is the same incident.""",
    ),
    Kind.FLAPPING: Entry(
        "9f68a201c55e4843ba134257df26ddba",
        "@WATCH_PORT@ is diverted and restored again and again",
        """\
A cause came back for the third time within ten minutes. No more is told of it until it has been
stable for a minute; then the outcome is.

The usual cause: somebody deletes a rule that a controller (kube-proxy, the CNI plugin, docker, a
configuration management) puts back; or a pod that holds the port is in a crash loop.

Cure: remove what makes the rule, not the rule. The message names the process that committed it.""",
    ),
    Kind.BLIND: Entry(
        "111791616eed437e90327a277886f123",
        "k3swatch cannot see everything",
        """\
A source of knowledge does not tell any more, or never did; the message says which and why. What
was known is kept, and what cannot be known is reported as unknown.

Look:
    k3swatch status
    systemctl show k3swatch -p CapabilityBoundingSet

Without the probe the rules are still read; without the rules connections are still seen.""",
    ),
    Kind.SIGHTED: Entry(
        "621d0f6b5f1f45ed9e84ea1eaf3934c8",
        "k3swatch can see again",
        """\
A source that did not tell tells again. Everything was read anew.""",
    ),
    Kind.LISTENER_CHANGED: Entry(
        "a1c9621a69404c7db68307345cd7ca5b",
        "Who listens on a protected port has changed",
        """\
Nobody listens on a protected port any more, or somebody does again. K3s closes its port while it
restarts; that takes seconds. When it lasts for a minute this is said again, as a warning.

Look:
    systemctl status k3s
    ss -ltnp""",
    ),
    Kind.CONFIG_REJECTED: Entry(
        "76301fa9e919455f9904f09f65425d36",
        "The new configuration of k3swatch was rejected",
        """\
The file has errors; all of them are in the message. The old configuration stays in force.

    k3swatch config check /etc/k3swatch/config.yaml
    systemctl reload k3swatch""",
    ),
    Kind.CONFIG_LOADED: Entry(
        "6c962fe7cf6a4c30abd4d5eaf1ae3ff3",
        "k3swatch has read its configuration",
        """\
The configuration was read and is in force.""",
    ),
    Kind.STARTED: Entry(
        "338c952409294414935db413273fd26a",
        "k3swatch watches",
        """\
The daemon has read the ruleset and watches. The message says how each port is now, and which incidents were
known before: they are not told a second time. The next entry says how connections are seen.

    k3swatch status""",
    ),
    Kind.STOPPED: Entry(
        "41375688b816467d87f17de47df13bc5",
        "k3swatch does not watch any more",
        """\
The daemon was stopped, or an error ended it: the message says which. Nobody watches the protected ports until it
is started again; open incidents are kept and will not be told twice.

Of a bug the whole traceback is on standard error, for a service:
    journalctl -u k3swatch""",
    ),
    Kind.GUARDED: Entry(
        "29d6fb6e3c0b4d1f9a77a8d5c1f06b42",
        "The guard neutralises what would take a protected port, or does not any more",
        """\
`k3swatch guard on` pinned a protected port: a rule that would send its connections elsewhere came, or was
there already, and has no say. The message names it, and says when it is gone, or the guard is. The port is delivered
all the while; but what made the rule is still there, and takes the port when the guard goes (a reboot ends it).

Look:
    k3swatch guard status tcp/6443
    k3swatch restore tcp/6443                  # how to remove what made the rule""",
    ),
    Kind.SINK_FAILED: Entry(
        "ae7d7a352efa43d0b7e2d4f4fa1a3178",
        "k3swatch cannot tell somebody who should be told",
        """\
Alertmanager does not take alerts, the store cannot be written, or a listener failed; the message
says which and why. k3swatch goes on, tries again, and counts (k3swatch_sink_failures_total).

Look: the address in /etc/k3swatch/config.yaml, `df /var/lib/k3swatch`, the service at the other end.""",
    ),
    Kind.SINK_RECOVERED: Entry(
        "102d2b685055418ebdac388b06159325",
        "k3swatch can tell again",
        """\
Somebody who could not be told is told again; what is still true was sent.""",
    ),
}

FIELDS: tuple[tuple[str, str], ...] = (
    ("K3SWATCH_PORT", "the port, `tcp/6443`"),
    ("K3SWATCH_NAME", "its name in the configuration, `k3s-api`"),
    ("K3SWATCH_STATE", "diverted, blocked, unknown; for `restored` the port's state now"),
    ("K3SWATCH_CHANGE", "opened, confirmed, changed, resolved, flapping; the notice's word for other events"),
    ("K3SWATCH_INCIDENT", "the incident's id, 12 hex digits; the same in Alertmanager, metrics and history"),
    ("K3SWATCH_SEVERITY", "the port's severity; `warning` when uncertain or unknown, `info` when no alarm"),
    (
        "K3SWATCH_MECHANISM",
        "dnat, redirect, netmap, tproxy, ipvs, socket, bpf, route, neighbour, unexplained, none",
    ),
    ("K3SWATCH_DESTINATION", "where connections go, `10.42.0.244:6443`; one field for each"),
    ("K3SWATCH_VANTAGE", "external, local; one field for each"),
    ("K3SWATCH_ADDRESSES", "a protected address that is affected; one field for each"),
    ("K3SWATCH_CONDITIONS", "a condition; one field for each"),
    ("K3SWATCH_RULE", "the deciding rule, in nft's words"),
    ("K3SWATCH_FAMILY", "its table's family"),
    ("K3SWATCH_TABLE", "its table"),
    ("K3SWATCH_CHAIN", "its chain"),
    ("K3SWATCH_HANDLE", "its handle"),
    ("K3SWATCH_COMMENT", "its comment, when it has one"),
    ("K3SWATCH_PATH", "one rule of the way to it; one field for each, in order"),
    ("K3SWATCH_CERTAIN", "1, or 0 when it rests on something that could not be decided"),
    ("K3SWATCH_SHADOWED", "1 when the cause waits behind another"),
    ("K3SWATCH_WHY", "why it is unknown or uncertain"),
    ("K3SWATCH_POD", "the pod that receives the traffic"),
    ("K3SWATCH_OWNER", "the pod's owner"),
    ("K3SWATCH_SERVICE", "the Service behind it"),
    ("K3SWATCH_CONTAINER", "the container's id"),
    ("K3SWATCH_FORWARDS", "where a ServiceLB pod sends the connections on"),
    ("K3SWATCH_CONFIDENCE", "how sure pod and Service are, and from which sources"),
    ("K3SWATCH_LEFT_BEHIND", "1 when two sources agree that what the rule was made for is gone"),
    ("K3SWATCH_ORPHAN", "then: sandbox (the pod is gone) or service (the Service behind the pod is)"),
    ("K3SWATCH_CURE", "then: what ends it, with the command"),
    ("K3SWATCH_CONTRADICTION", "how sources contradict each other"),
    ("K3SWATCH_NOTE", "what contradicts, or could not be read"),
    (
        "K3SWATCH_WAY",
        "an address at which the API answers while its port is taken, with the kubeconfig that has it",
    ),
    ("K3SWATCH_WAYS", "which paths to the API work, in words"),
    ("K3SWATCH_CONNECTIONS", "diverted connections seen so far"),
    (
        "K3SWATCH_DROP_REASON",
        "why some of them were dropped on the way, as the kernel calls it; one field for each",
    ),
    ("K3SWATCH_GENERATION", "the nf_tables generation"),
    ("K3SWATCH_PID", "the process that committed the rule"),
    ("K3SWATCH_COMM", "its name"),
    ("K3SWATCH_PROCESS", "its command line, its parents and its unit, in one line"),
    ("K3SWATCH_EXE", "the file it executed"),
    ("K3SWATCH_CMDLINE", "its command line, 512 characters at most, without what looks like a secret"),
    ("K3SWATCH_PARENT", "one of its parents; one field for each, nearest first"),
    ("K3SWATCH_UNIT", "its systemd unit"),
    ("K3SWATCH_PROCESS_CONFIDENCE", "how sure that is, and from where: exec (the kernel's record), proc"),
    ("K3SWATCH_FLAPS", "how often the cause came back"),
    (
        "WATCH_PORT",
        "and DESTINATION, FAMILY, TABLE, CHAIN, INCIDENT: the first value of the field above, quoted for a shell. "
        "journalctl puts only fields without a digit in their name into a catalog's text",
    ),
    ("K3SWATCH_SUBJECT", "events that are no incident: the source, the port or the file"),
    ("K3SWATCH_HINT", "events that are no incident: what to do"),
)

# What the texts name; see FIELDS
COPIED = ("PORT", "DESTINATION", "FAMILY", "TABLE", "CHAIN", "INCIDENT")

_HEAD = "# Generated from k3swatch/view/catalog.py by docs/generate. See systemd.journal-fields(7), journalctl -x.\n"


def catalog() -> str:
    """The text of systemd/k3swatch.catalog, in the format of systemd's message catalogs."""
    parts = [_HEAD]
    for kind, entry in ENTRIES.items():
        parts.append(
            f"-- {entry.id}\nSubject: {entry.subject}\nDefined-By: k3swatch\n"
            f"Documentation: file:///usr/share/doc/k3swatch/journal.md#{kind}\n\n{entry.text}\n"
        )
    return "\n".join(parts)


def markdown() -> str:
    """The text of docs/journal.md."""
    lines = [
        "<!-- Generated from k3swatch/view/catalog.py by docs/generate. -->",
        "# What k3swatch writes to the journal",
        "",
        "    journalctl -t k3swatch -x                    # everything, with cause and cure",
        f"    journalctl MESSAGE_ID={ENTRIES[Kind.DIVERTED].id}",
        "    journalctl K3SWATCH_INCIDENT=962a3c344c20    # one incident from first to last word",
        "    journalctl -t k3swatch -p warning -o json",
        "",
        "Entries are sent with journald's native protocol: every field is framed by its length, so that no rule,",
        "comment or process name can forge a field or an entry. Priority: `critical` ports 2, others 4, shadowed",
        "causes 5. When journald is not there, the same lines go to stderr with a `<N>` prefix, and that is said once.",
        "",
        "## Fields",
        "",
        "| field | what |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in FIELDS),
        "",
        "## Kinds",
        "",
        "| kind | MESSAGE_ID |",
        "|---|---|",
        *(f"| [{kind}](#{kind}) | `{entry.id}` |" for kind, entry in ENTRIES.items()),
    ]
    for kind, entry in ENTRIES.items():
        lines += ["", f"### {kind}", "", f"`{entry.id}`: {entry.subject}", "", "```text", entry.text, "```"]
    return "\n".join(lines) + "\n"
